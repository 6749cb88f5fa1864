"""Write the lines of each method's folder into docs/results.md; --check fails if they are stale."""

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


def page() -> str:
    """The whole page."""
    rows = []
    for method in METHODS:
        lines = dict.fromkeys(COLUMNS, 0)
        for path in (ROOT / "plugins" / method).glob("*.py"):
            count = len(path.read_text(encoding="utf-8").splitlines())
            lines[FILES.get(path.name, "drafting")] += count
            lines["all"] += count
        rows.append([f"`{method}`", *map(str, lines.values())])
    table = "\n".join(generated.table(("method", *COLUMNS), rows)) + "\n"
    text = PAGE.read_text(encoding="utf-8")
    return generated.inserted(text, "lines", Path(__file__).name, table)


if __name__ == "__main__":
    sys.exit(generated.main(__doc__, PAGE, page))
