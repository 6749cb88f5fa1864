"""Reports on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from specdec.bench.benchmark_report import Report
from specdec.bench.report_notes import notes
from specdec.bench.report_tables import ReportTable, report_tables
from specdec.bench.setting_names import settings_text

_NARROW = 13  # what the first column may take of a terminal of 80 columns
_STYLES = {"yes": "green", "NO": "bold red", "n/a": "yellow", "baseline": "dim"}


def tables(reports: Sequence[Report]) -> Group:
    """The tables of each report below each other, then its notes."""
    found: list[Any] = []
    for report in reports:
        if len(reports) > 1:
            found.append(Text(settings_text(report.settings), style="bold"))
        found += map(table, report_tables(report))
        found += (Text(note, style="dim") for note in notes(report))
    return Group(*found)


def table(report_table: ReportTable) -> Table:
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    first, *others = report_table.columns
    made.add_column(Text(first.replace("/ ", "/\n")), style="cyan", no_wrap=True)
    for index, column in enumerate(others, 1):
        wraps = any(" / " in row[index] or " (" in row[index] for row in report_table.rows)
        header = Text(column.replace(" ", "\n", 1), justify="right")
        made.add_column(header, justify="right", overflow="fold", no_wrap=not wraps)
    for row in report_table.rows:
        label, *cells = row
        styled = (Text(cell, style=_STYLES.get(cell.split(",")[0], "")) for cell in cells)
        made.add_row(_label(label), *styled)
    return made


def _label(label: str) -> Text:
    """Of two lines where it is long: a strategy and its variant, transformers and its method."""
    if len(label) <= _NARROW:
        return Text(label)
    return Text(label.replace(":", "\n:", 1).replace("transformers ", "transformers\n", 1))
