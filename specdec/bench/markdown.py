"""A report as a page, for the record."""

from __future__ import annotations

import json

from specdec.bench.report_tables import Sheet, notes, sheets
from specdec.bench.benchmark_report import Report


def markdown(report: Report) -> str:
    """Date, versions, command, the sheets, the notes and every contender's options."""
    about = report.versions
    lines = [
        f"# Strategies on {report.model}",
        "",
        f"{report.date[:10]}. specdec {about['specdec']} ({about['commit'] or 'no commit'}), "
        f"torch {about['torch']}, transformers {about['transformers']}, Python {about['python']}; "
        f"{report.machine['system']} {report.machine['architecture']}"
        + (f", {report.machine['gpu']}." if report.machine["gpu"] else "."),
    ]
    if report.command:
        lines += ["", "```", report.command, "```"]
    for sheet in sheets(report):
        lines += ["", *_table(sheet)]
    lines += ["", *(f"- {note}" for note in notes(report))]
    sets = ", ".join(f"{name} ({count})" for name, count in report.prompts["sets"].items())
    lines += ["", f"Prompts: {sets}; sha256 of their token ids {report.prompts['sha256']}."]
    lines += ["", "| strategy | options |", "|---|---|"]
    for result in report.results:
        if options := result.facts.get("options"):
            lines.append(f"| {result.strategy} | `{json.dumps(options)}` |")
    return "\n".join(lines) + "\n"


def _table(sheet: Sheet) -> list[str]:
    return [
        f"| {' | '.join(sheet.columns)} |",
        "|---" * len(sheet.columns) + "|",
        *(f"| {' | '.join(row)} |" for row in sheet.rows),
    ]
