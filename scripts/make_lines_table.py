"""Write the lines of each method's folder, and of the core's code for some of them alone, into
docs/results.md; --check fails if they are stale."""

from __future__ import annotations

import sys
from pathlib import Path

import generated

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
METHODS = ("medusa", "hydra", "lookahead", "suffix")
# Every other file is of drafting.
FILES = {"checkpoint.py": "checkpoints", "training.py": "training", "testing.py": "test support"}
COLUMNS = ("drafting", *FILES.values(), "all")
# Files of the core that no other method uses.
SHARED_BY = ("medusa", "hydra")
SHARED = {
    "drafting": ("drafting/heads_drafter.py", "drafting/sparse_tree.py"),
    "checkpoints": (
        "models/heads/checkpoint.py", "models/heads/depth_heads.py", "models/heads/kind.py",
    ),
    "training": ("training/depth_options.py", "training/depth_recipe.py"),
    "test support": ("testing/random_heads.py",),
}  # fmt: skip


def page() -> str:
    """The whole page."""
    rows = []
    for method in METHODS:
        lines = dict.fromkeys(COLUMNS[:-1], 0)
        for path in (ROOT / "plugins" / method).glob("*.py"):
            lines[FILES.get(path.name, "drafting")] += _lines(path)
        rows.append(_row(f"`{method}`", lines))
    own = {
        column: sum(_lines(ROOT / "specdec" / file) for file in files)
        for column, files in SHARED.items()
    }
    both = " and ".join(f"`{method}`" for method in SHARED_BY)
    rows.append(_row(f"in the core, for {both} alone", own))
    table = "\n".join(generated.table(("method", *COLUMNS), rows)) + "\n"
    text = PAGE.read_text(encoding="utf-8")
    return generated.inserted(text, "lines", Path(__file__).name, table)


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _row(name: str, lines: dict[str, int]) -> list[str]:
    return [name, *map(str, lines.values()), str(sum(lines.values()))]


if __name__ == "__main__":
    sys.exit(generated.main(__doc__, PAGE, page))
