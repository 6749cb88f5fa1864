"""Reports as a Markdown page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from specdec.bench.benchmark_report import Report
from specdec.bench.report_notes import notes
from specdec.bench.report_tables import ReportTable, position_table, report_tables
from specdec.bench.setting_names import settings_text

# A _ within a word marks nothing up.
_MARKUP = re.compile(r"[\\`*\[\]!<|~$]|(?<!\w)_|_(?!\w)")

_ABOUT_POSITIONS = (
    "By position: of the draft tokens whose parent was accepted, the share that was accepted, and "
    "in brackets how many there were. Rank: among the siblings, by confidence."
)


def markdown(reports: Sequence[Report], *, summary: Sequence[str] = ()) -> str:
    """Date, versions, command, the tables, the notes and every contender's options.

    Args:
        reports: of one benchmark, one for each temperature and batch size.
        summary: lines that come before the tables.
    """
    first = reports[0]
    about = first.versions
    lines = [
        f"# Strategies on {escaped(first.model)}",
        "",
        f"{first.date[:10]}. specdec {about['specdec']} ({about['commit'] or 'no commit'}), "
        f"torch {about['torch']}, transformers {about['transformers']}, Python {about['python']}; "
        f"{first.machine['system']} {first.machine['architecture']}"
        + (f", {first.machine['gpu']}." if first.machine["gpu"] else "."),
    ]
    if first.command:
        lines += ["", "```", first.command, "```"]
    lines += summary
    for report in reports:
        if summary or len(reports) > 1:
            lines += ["", f"## All measures, {settings_text(report.settings)}"]
        for report_table in report_tables(report):
            lines += ["", *markdown_table(report_table)]
        if positions := position_table(report):
            lines += ["", *markdown_table(positions), "", _ABOUT_POSITIONS]
        lines += ["", *(f"- {escaped(note)}" for note in notes(report))]
    sets = ", ".join(f"{escaped(name)} ({count})" for name, count in first.prompts["sets"].items())
    lines += ["", f"Prompts given: {sets}; sha256 of their token ids {first.prompts['sha256']}."]
    lines += ["", "| strategy | options |", "|---|---|"]
    for result in first.results:
        if options := result.facts.get("options"):
            lines.append(f"| {escaped(result.strategy)} | {_code(json.dumps(options))} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """In a cell of a table; code shows a ``<`` as it is, but a ``|`` would end the cell."""
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"


def markdown_table(table: ReportTable) -> list[str]:
    """The lines of a table."""
    return [
        f"| {' | '.join(map(escaped, table.columns))} |",
        "|---" * len(table.columns) + "|",
        *(f"| {' | '.join(map(escaped, row))} |" for row in table.rows),
    ]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line and in one cell."""
    return " ".join(_MARKUP.sub(r"\\\g<0>", text.replace("&", "&amp;")).split())
