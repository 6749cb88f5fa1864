"""The figure of tokens/s against the batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specdec.bench.figure_style import (
    bars,
    headline,
    legend,
    marked_line,
    new_figure,
    prompts_measured,
)


def batches(reports: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Any | None:
    """tokens/s of the whole batch, and speedup over plain decoding of the same batch, against the
    batch size; a line for each method.

    Args:
        reports: of one temperature, one for each batch size; None is drawn of fewer than two.
        labels: the methods, plain decoding among them.
    """
    if len(reports) < 2:
        return None
    reports = sorted(reports, key=lambda report: report["settings"]["batch_size"])
    sizes = [report["settings"]["batch_size"] for report in reports]
    of_all = [{row["strategy"]: row for row in report["results"]} for report in reports]
    means = [{row["strategy"]: row for row in report["means"]} for report in reports]
    shown = [label for label in labels if sum(label in own for own in of_all) > 1]
    figure = new_figure(3.6 + 0.13 * ((len(shown) + 1) // 2))
    panels = figure.subplots(2, 1, sharex=True)
    measures = {
        "tokens_per_second": ("tokens/s, all rows\n(wall clock)", of_all),
        "speedup": ("speedup over plain\n(ratio of tokens/s)", means),
    }
    for axes, (measure, (caption, rows)) in zip(panels, measures.items(), strict=True):
        for index, label in enumerate(shown):
            at = [(size, own[label]) for size, own in zip(sizes, rows, strict=True) if label in own]
            drawn = [row for _, row in at]
            axes.errorbar(
                [size for size, _ in at],
                [row[measure] for row in drawn],
                yerr=bars(drawn, measure),
                **marked_line(index),
                elinewidth=0.6,
                capsize=1.5,
                label=label,
            )
        axes.set_ylim(bottom=0)
        axes.set_ylabel(caption)
    panels[1].set_xscale("log", base=2)
    panels[1].set_xticks(sizes, list(map(str, sizes)))
    panels[1].minorticks_off()
    counts = [prompts_measured(report) for report in reports]
    n = " to ".join(map(str, sorted({min(counts), max(counts)})))
    panels[1].set_xlabel(f"batch size (rows decoded together), n = {n} prompts")
    what = (
        "prefill included; tokens/s: all prompts together;\n"
        "speedup: mean over prompt sets, bars: 95 % interval"
    )
    headline(figure, reports[0], what)
    legend(figure, panels[0])
    return figure
