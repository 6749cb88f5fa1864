"""Reports as a Markdown page."""

from __future__ import annotations

import json
from collections.abc import Sequence

from specdec.bench.benchmark_report import Report
from specdec.bench.report_tables import ReportTable, notes, report_tables
from specdec.bench.temperature_names import written


def markdown(reports: Sequence[Report], *, summary: Sequence[str] = ()) -> str:
    """Date, versions, command, the tables, the notes and every contender's options.

    Args:
        reports: of one benchmark, one for each temperature.
        summary: lines that come before the tables.
    """
    first = reports[0]
    about = first.versions
    lines = [
        f"# Strategies on {first.model}",
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
            lines += ["", f"## All measures, temperature {written(report.settings['temperature'])}"]
        for report_table in report_tables(report):
            lines += ["", *markdown_table(report_table)]
        lines += ["", *(f"- {note}" for note in notes(report))]
    sets = ", ".join(f"{name} ({count})" for name, count in first.prompts["sets"].items())
    lines += ["", f"Prompts: {sets}; sha256 of their token ids {first.prompts['sha256']}."]
    lines += ["", "| strategy | options |", "|---|---|"]
    for result in first.results:
        if options := result.facts.get("options"):
            lines.append(f"| {result.strategy} | `{json.dumps(options)}` |")
    return "\n".join(lines) + "\n"


def markdown_table(table: ReportTable) -> list[str]:
    """The lines of a table."""
    return [
        f"| {' | '.join(table.columns)} |",
        "|---" * len(table.columns) + "|",
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]
