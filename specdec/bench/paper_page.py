"""The page of a comparison: tau and speedup by method and prompt set, as papers have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from specdec.bench.benchmark_report import Mean, Means, Range, Ratio, Report, Result
from specdec.bench.markdown import escaped, markdown, markdown_table
from specdec.bench.reliability import BINS
from specdec.bench.report_tables import ReportTable, number_text, range_text, ratio_text
from specdec.bench.setting_names import settings_text


def paper_page(
    reports: Sequence[Report],
    ablations: Sequence[str],
    left_out: Mapping[str, str],
    figures: Sequence[Path],
) -> str:
    """The tables and figures, then everything that was measured.

    Args:
        reports: one for each temperature and batch size.
        ablations: the labels that belong to the ablations alone.
        left_out: the strategies that did not run, and why.
        figures: files beside the page.
    """
    lines = []
    for report in reports:
        for heading, found in paper_tables(report, ablations).items():
            lines += ["", f"## {heading}", "", *markdown_table(found)]
    lines += ["", *(f"- {escaped(note)}" for note in notes(left_out))]
    if figures:
        lines += ["", "## Figures", ""]
        lines += [f"![{path.stem}]({path.name})" for path in figures]
    return markdown(reports, summary=lines)


def notes(left_out: Mapping[str, str]) -> list[str]:
    """How to read the tables, and what is missing in them."""
    return [
        "In brackets: the 95 % interval, by bootstrap over prompts. Mean: over the prompt sets.",
        "Confidence: a draft token's value by its parent's; of draft tokens below nodes that the "
        "text passed through, beside whether the target took them. ECE: expected calibration "
        f"error, {BINS} bins; bias: confidence less acceptance; Brier score and log loss (nats) "
        "are means.",
        *(f"{name} did not run: {reason.rstrip('.')}." for name, reason in left_out.items()),
    ]


def paper_tables(report: Report, ablations: Sequence[str]) -> dict[str, ReportTable]:
    """tau and speedups by method (down) and prompt set (across), then those of the ablations beside
    what they change, by their headings."""
    labels = [result.strategy for result in report.results]
    compared = [label for label in labels if label not in ablations]
    names = {label.partition(":")[0] for label in ablations}
    changed = [label for label in labels if label.partition(":")[0] in names]
    found = _tables(report, compared)
    more = _tables(report, changed) if ablations else {}
    return {**found, **{f"Ablations: {heading}": table for heading, table in more.items()}}


def _tables(report: Report, labels: Sequence[str]) -> dict[str, ReportTable]:
    at = settings_text(report.settings)
    found = {
        f"tau, {at}": _by_set(report, labels, _tau, lambda means: means.tau, unit=""),
        f"speedup over plain decoding, {at}": _by_set(
            report, labels, lambda result: _ratio(result.speedup), lambda means: means.speedup
        ),
    }
    if any(result.beside_transformers for result in report.results):
        found[f"speedup over transformers' generate, {at}"] = _by_set(
            report,
            labels,
            lambda result: _ratio(result.beside_transformers),
            lambda means: means.beside_transformers,
        )
    if confidences := _confidences(report, labels):
        found[f"confidence of draft tokens as the probability of acceptance, {at}"] = confidences
    return found


def _confidences(report: Report, labels: Sequence[str]) -> ReportTable | None:
    """Calibration error and proper scores, of all prompts together."""
    rows = []
    for label in labels:
        outcomes = report.of(label).outcomes
        own = outcomes.reliability.summary() if outcomes else None
        if own and own["ece"] is not None:
            scores = (f"{own[name]:.3f}" for name in ("ece", "bias", "brier", "log_loss"))
            rows.append((label, str(own["count"]), *scores))
    columns = ("method", "draft tokens", "ECE", "bias", "Brier", "log loss")
    return ReportTable(columns, tuple(rows)) if rows else None


def _by_set(
    report: Report,
    labels: Sequence[str],
    cell: Callable[[Result], str],
    mean: Callable[[Means], Mean | None],
    unit: str = "x",
) -> ReportTable:
    of_sets = report.by_set or report.results
    sets = list(dict.fromkeys(result.set for result in of_sets))
    means = {each.strategy: mean(each) for each in report.means}
    rows = []
    for label in labels:
        own = [each for each in of_sets if each.strategy == label]
        found = means[label]
        shown = _spread(f"{found.value:.2f}{unit}", found.interval) if found else "-"
        rows.append((label, *map(cell, own), shown))
    titles = sets if report.by_set else list(report.prompts["sets"])
    return ReportTable(("method", *titles, "mean"), tuple(rows))


def _ratio(ratio: Ratio | None) -> str:
    return _spread(ratio_text(ratio), ratio.interval if ratio else None)


def _tau(result: Result) -> str:
    return _spread(number_text(result.tau), result.tau_interval)


def _spread(value: str, interval: Range | None) -> str:
    return value if interval is None else f"{value} ({range_text(interval)})"
