"""A report as a plot."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from specdec.bench.benchmark_report import PLAIN, Report, Result
from specdec.errors import OptionError

_SUFFIXES = (".png", ".svg", ".pdf")
_BAR, _INK, _BAND = "#4477aa", "#222222", "#dddddd"


def check_plot(path: Path) -> None:
    """Refuse before the runs what could not be drawn after them.

    Raises:
        OptionError: an unknown suffix; matplotlib is missing.
    """
    if path.suffix not in _SUFFIXES:
        raise OptionError(f"{path}: a plot must end in {', '.join(_SUFFIXES)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError("a plot needs matplotlib: pip install 'specdec[bench]'")


def plot(report: Report, path: Path) -> None:
    """Bars of speedup, the best on top; lines show the quartiles over prompts.

    With one batch of prompts they show the extent over repetitions. The grey band is the noise:
    how far ``plain`` was from itself.
    """
    from matplotlib.figure import Figure

    shown = sorted(
        (result for result in report.results if result.strategy != PLAIN),
        key=lambda result: result.speedup.median,
    )
    figure = Figure(figsize=(7.5, 1.9 + 0.45 * len(shown)), layout="constrained")
    axes = figure.subplots()
    noise = abs(report.noise.median - 1)
    axes.axvspan(1 - noise, 1 + noise, color=_BAND, zorder=0, linewidth=0)
    axes.axvline(1, color=_INK, linewidth=1, zorder=1)
    medians = [result.speedup.median for result in shown]
    axes.barh(
        [result.strategy for result in shown],
        medians,
        xerr=_spreads(shown),
        color=_BAR,
        height=0.6,
        zorder=2,
        error_kw={"ecolor": _INK, "capsize": 3, "elinewidth": 1.2},
    )
    ends = [max(m, (_spread(r) or (m, m))[1]) for m, r in zip(medians, shown, strict=True)]
    for index, (median, end) in enumerate(zip(medians, ends, strict=True)):
        axes.annotate(
            f"{median:.2f}x",
            (end, index),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=_INK,
        )
    axes.set_xlim(0, 1.15 * max([1.0, *ends]))
    axes.set_xlabel(_caption(report))
    axes.set_title(_title(report), loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _spread(result: Result) -> tuple[float, float] | None:
    return result.speedup.over_prompts or result.speedup.over_repetitions


def _spreads(shown: list[Result]) -> Any:
    pairs = [(_spread(r) or (r.speedup.median,) * 2, r.speedup.median) for r in shown]
    below = [max(0.0, median - low) for (low, _), median in pairs]
    above = [max(0.0, high - median) for (_, high), median in pairs]
    return [below, above]


def _caption(report: Report) -> str:
    parts = ["speedup over plain decoding (median"]
    if any(result.speedup.over_prompts for result in report.results):
        parts.append("lines: quartiles over prompts")
    elif report.repetitions > 1:
        parts.append(f"lines: least and largest of {report.repetitions} repetitions")
    return "; ".join([*parts, "grey: noise)"])


def _title(report: Report) -> str:
    settings, threads = report.settings, report.machine["threads"]
    first = f"{report.model}, {report.dtype} on {report.device}"
    if report.inflated:
        first += f" (synthetic: inflated from {report.inflated})"
    return (
        f"{first}\n{sum(report.prompts['sets'].values())} prompts, batch {settings['batch_size']}, "
        f"temperature {settings['temperature']:g}, {settings['max_new_tokens']} new tokens, "
        f"{threads} {'thread' if threads == 1 else 'threads'}, {report.date[:10]}"
    )
