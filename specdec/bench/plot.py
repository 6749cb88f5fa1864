"""Reports as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specdec.bench.benchmark_report import PLAIN, Report, Result
from specdec.bench.figure_style import TEXT_AS_IT_IS, check_matplotlib, done_to_networks
from specdec.bench.setting_names import temperature_text
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
    check_matplotlib()


def plot(reports: Sequence[Report], path: Path) -> None:
    """Bars of speedup, the best on top, a panel for each report; lines show the quartiles over
    prompts.

    With one batch of prompts they show the extent over repetitions. The grey band is the noise:
    how far ``plain`` was from itself.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    bars = len(reports[0].results) - 1
    size = (7.5, len(reports) * (1.9 + 0.45 * bars))
    with rc_context(TEXT_AS_IT_IS):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(reports), squeeze=False)
        for report, (axes,) in zip(reports, panels, strict=True):
            _panel(report, axes)
        figure.savefig(path, dpi=150)


def _panel(report: Report, axes: Any) -> None:
    shown = sorted(
        (result for result in report.results if result.strategy != PLAIN),
        key=lambda result: result.speedup.median,
    )
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
    done = done_to_networks(report.pack, report.compile)
    first = f"{report.model}, {report.dtype} on {report.device}{done}"
    if report.inflated:
        first += f" (synthetic: inflated from {report.inflated})"
    return (
        f"{first}\n{report.results[0].prompts} prompts, batch {settings['batch_size']}, "
        f"temperature {temperature_text(settings['temperature'])}, "
        f"{settings['max_new_tokens']} new tokens, {threads} "
        f"{'thread' if threads == 1 else 'threads'}, {report.date[:10]}"
    )
