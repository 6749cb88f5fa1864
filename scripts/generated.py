"""Pages that are generated, whole or in part: written anew, or compared with what is there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path


def inserted(text: str, name: str, script: str, body: str) -> str:
    """A page with the part between the marks ``<!-- NAME: scripts/SCRIPT -->`` and
    ``<!-- /NAME -->`` replaced by ``body``.

    Raises:
        ValueError: the page lacks the marks, or has them twice.
    """
    begin, end = f"<!-- {name}: scripts/{script} -->\n", f"<!-- /{name} -->\n"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended or begin in rest:
        raise ValueError(f"the page must have the marks {begin.strip()} and {end.strip()} once")
    return before + begin + body + end + after


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table, whose cells are Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def main(description: str | None, path: Path, page: Callable[[], str]) -> int:
    """Write ``page()`` to ``path``, or with ``--check`` compare the two: the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    return written(path, page(), check=parser.parse_args().check)


def written(path: Path, fresh: str, *, check: bool) -> int:
    """Write a page, or compare it with what is there: the exit status."""
    if not check:
        path.write_text(fresh, encoding="utf-8")
        return 0
    if path.exists() and path.read_text(encoding="utf-8") == fresh:
        return 0
    print(f"{path} is stale: run `make docs`", file=sys.stderr)
    return 1
