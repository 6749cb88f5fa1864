"""The figure of tau and speedup by method and prompt set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specdec.bench.figure_style import (
    COLOURS,
    INK,
    MARKERS,
    SMALL,
    headline,
    legend,
    new_figure,
    prompts_measured,
)

_SPREAD = "#bbbbbb"


def tasks(report: Mapping[str, Any], labels: Sequence[str]) -> Any | None:
    """tau, and speedup over plain decoding: a row for each method, a mark for each prompt set; the
    line is their mean, the bar its 95 % interval. None where nothing is compared."""
    rows = {row["strategy"]: row for row in report["means"] if row["strategy"] in labels}
    if not rows:
        return None

    figure = new_figure(1.2 + 2 * (0.35 + 0.16 * len(rows)))
    panels = figure.subplots(2, 1)
    own = [row for row in report["by_set"] if row["strategy"] in rows]
    sets = list(dict.fromkeys(row["set"] for row in own))
    n = prompts_measured(report)
    captions = {
        "tau": f"tau (tokens per target forward)\nn = {n} prompts",
        "speedup": f"speedup over plain decoding\n(ratio of tokens/s), n = {n} prompts",
    }
    for axes, (measure, caption) in zip(panels, captions.items(), strict=True):
        shown = [row for row in rows.values() if row[measure] is not None]
        shown.sort(key=lambda row: row[measure])
        _method_rows(axes, shown, measure)
        for index, name in enumerate(sets):
            points = {row["strategy"]: row for row in own if row["set"] == name}
            axes.scatter(
                [points[row["strategy"]][measure] for row in shown],
                range(len(shown)),
                s=11,
                marker=MARKERS[index % len(MARKERS)],
                color=COLOURS[index % len(COLOURS)],
                edgecolors=INK,
                linewidths=0.25,
                zorder=3,
                label=f"{name} (n = {points[shown[0]['strategy']]['prompts']})",
            )
        axes.axvline(1, color=INK, linewidth=0.6, linestyle=":", zorder=1)
        axes.set_xlabel(caption)
    if sets:
        legend(figure, panels[0])
    what = "line: mean over prompt sets; bar: its 95 % interval; marks: prompt sets"
    headline(figure, report, what)
    return figure


def _method_rows(axes: Any, shown: Sequence[Mapping[str, Any]], measure: str) -> None:
    """The mean over prompt sets of each method, with its interval."""
    axes.use_sticky_edges = False
    for height, row in enumerate(shown):
        low, high = row[f"{measure}_interval"] or (row[measure],) * 2
        axes.barh(height, high - low, left=low, height=0.5, color=_SPREAD, zorder=1)
        axes.plot([row[measure]] * 2, [height - 0.36, height + 0.36], color=INK, linewidth=1.2)
    names = [row["strategy"].replace("transformers ", "transformers\n") for row in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=SMALL, linespacing=0.9)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.set_axisbelow(True)
