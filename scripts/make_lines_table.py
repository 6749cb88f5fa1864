"""Write the lines of each method's folder into docs/results.md; --check fails if they are stale."""

from __future__ import annotations

import sys
from pathlib import Path

import generated

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- lines: scripts/make_lines_table.py -->\n", "<!-- /lines -->\n"
METHODS = ("medusa", "hydra", "lookahead", "suffix")
# Every other file is of drafting.
FILES = {"checkpoint.py": "checkpoints", "training.py": "training", "testing.py": "test support"}
COLUMNS = ("drafting", *FILES.values(), "all")


def page() -> str:
    """The whole page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    rows = [["method", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    for method in METHODS:
        lines = dict.fromkeys(COLUMNS, 0)
        for path in (ROOT / "plugins" / method).glob("*.py"):
            count = len(path.read_text(encoding="utf-8").splitlines())
            lines[FILES.get(path.name, "drafting")] += count
            lines["all"] += count
        rows.append([f"`{method}`", *map(str, lines.values())])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return before + BEGIN + table + END + rest.split(END)[1]


if __name__ == "__main__":
    sys.exit(generated.main(__doc__, PAGE, page))
