"""Pages that are generated, whole or in part: written anew, or compared with what is there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def inserted(text: str, name: str, script: str, body: str) -> str:
    """A page with the part between the marks ``<!-- NAME: scripts/SCRIPT -->`` and
    ``<!-- /NAME -->`` replaced by ``body``."""
    begin, end = f"<!-- {name}: scripts/{script} -->\n", f"<!-- /{name} -->\n"
    before, rest = text.split(begin)
    return before + begin + body + end + rest.split(end, 1)[1]


def main(description: str | None, path: Path, page: Callable[[], str]) -> int:
    """Write ``page()`` to ``path``, or with ``--check`` compare the two: the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    fresh = page()
    if not check:
        path.write_text(fresh, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == fresh:
        return 0
    print(f"{path} is stale: run `make docs`", file=sys.stderr)
    return 1
