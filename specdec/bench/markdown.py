"""A report as a Markdown page."""

from __future__ import annotations

import json

from specdec.bench.benchmark_report import Report
from specdec.bench.report_tables import ReportTable, notes, report_tables


def markdown(report: Report) -> str:
    """Date, versions, command, the tables, the notes and every contender's options."""
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
    for report_table in report_tables(report):
        lines += ["", *_table(report_table)]
    lines += ["", *(f"- {note}" for note in notes(report))]
    sets = ", ".join(f"{name} ({count})" for name, count in report.prompts["sets"].items())
    lines += ["", f"Prompts: {sets}; sha256 of their token ids {report.prompts['sha256']}."]
    lines += ["", "| strategy | options |", "|---|---|"]
    for result in report.results:
        if options := result.facts.get("options"):
            lines.append(f"| {result.strategy} | `{json.dumps(options)}` |")
    return "\n".join(lines) + "\n"


def _table(report_table: ReportTable) -> list[str]:
    return [
        f"| {' | '.join(report_table.columns)} |",
        "|---" * len(report_table.columns) + "|",
        *(f"| {' | '.join(row)} |" for row in report_table.rows),
    ]
