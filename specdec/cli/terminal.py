"""Consoles, tables and the spinner."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

_WIDTH_OF_A_FILE = 140
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in range(32) if chr(code) not in "\n\t"}


def stdout() -> Console:
    """The console of the output; wider than 80 columns where there is no terminal to fit."""
    fixed = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_FILE
    return Console(width=fixed, highlight=False)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    notes: Sequence[str] = (),
    header: bool = True,
) -> Group:
    """A plain table whose cells are text, never markup, and notes below it."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_header=header)
    for index, column in enumerate(columns):
        made.add_column(column, style="cyan" if index == 0 else None, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return Group(made, *(Text(note, style="dim") for note in notes))


def pairs(rows: Sequence[tuple[str, Any]], *, notes: Sequence[str] = ()) -> Group:
    """A table of names and values without a header."""
    return table(("", ""), rows, notes=notes, header=False)


def _cell(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    return Text("-" if value is None else str(value))


def shown(value: Any) -> Any:
    """A JSON value as a cell: yes or no, lists and objects with commas, thousands apart."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or None
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items()) or None
    return f"{value:,}" if isinstance(value, int) else value


def print_json(payload: Any) -> None:
    """One JSON document on stdout: on one line, unless a person is reading."""
    sys.stdout.write(json.dumps(payload, indent=2 if sys.stdout.isatty() else None) + "\n")


def write(text: str) -> None:
    """Streamed text at once; on a terminal without the characters that would control it."""
    if sys.stdout.isatty():
        text = text.translate(_CONTROLS)
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


@contextmanager
def working(message: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr, if that is a terminal; yields a function that changes its message."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(message, refresh_per_second=4) as status:  # it takes CPU time
        yield lambda text: status.update(text)
