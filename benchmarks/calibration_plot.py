"""The picture of benchmarks/calibration.py: a reliability curve for each strategy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LINE, _INK, _BAR = "#4477aa", "#222222", "#dddddd"
_TITLES = {"eagle2": "eagle2: the head's confidence", "auto": "auto: learned acceptance"}


def plot(report: dict[str, Any], path: Path) -> None:
    """A panel for each temperature (across) and strategy (down).

    Dots: how often the children of a bin of confidence were the target's token; the diagonal is
    where they should be; bars: how many children the bin has, on a logarithmic scale.
    """
    from matplotlib.figure import Figure

    results = report["results"]
    temperatures = list(results)
    strategies = list(results[temperatures[0]])
    size = (3.4 * len(temperatures), 3.3 * len(strategies) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(strategies), len(temperatures), squeeze=False)
    for down, name in enumerate(strategies):
        for across, temperature in enumerate(temperatures):
            found = results[temperature][name]["children"]
            axes = panels[down][across]
            _panel(axes, found)
            axes.set_title(
                f"{_TITLES.get(name, name)}\ntemperature {temperature}, ECE {found['ece']:.3f}",
                fontsize=9,
            )
            if down == len(strategies) - 1:
                axes.set_xlabel("confidence of a draft child")
            if across == 0:
                axes.set_ylabel("share that the target drew")
    prompts = sum(report["prompts"].values())
    figure.suptitle(
        f"{report['model']}, {report['dtype']}; {prompts} prompts, {report['max_new_tokens']} new "
        f"tokens, {report['date']}; bars: children in the bin (log scale)",
        fontsize=8,
    )
    figure.savefig(path, dpi=150)


def _panel(axes: Any, found: dict[str, Any]) -> None:
    curve = found["curve"]
    width = 1 / len(curve)
    counts = axes.twinx()
    middles = [(bin["low"] + bin["high"]) / 2 for bin in curve]
    counts.bar(middles, [bin["count"] for bin in curve], width=0.9 * width, color=_BAR)
    counts.set_yscale("symlog")
    counts.set_ylim(0, 1e3 * max(10, found["count"]))
    counts.yaxis.set_visible(False)
    for bin, middle in zip(curve, middles, strict=True):
        counts.annotate(
            f"{bin['count']:,}",
            (middle, max(1, bin["count"])),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=5,
            color=_INK,
        )
    counts.set_box_aspect(1)
    axes.set_zorder(counts.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle="--")
    known = [bin for bin in curve if bin["count"]]
    axes.plot(
        [bin["confidence"] for bin in known],
        [bin["rate"] for bin in known],
        color=_LINE,
        marker="o",
        markersize=4,
        clip_on=False,
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_box_aspect(1)
