"""The figure of acceptance by position in the draft tree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from specdec.bench.figure_style import COLOURS, FEWEST, MARKERS, SMALL, headline, legend, new_figure
from specdec.bench.report_tables import SHOWN_DEPTHS, SHOWN_RANKS

_ACROSS = 2
_APART = 0.1  # of the marks at one depth


def positions(report: Mapping[str, Any], labels: Sequence[str]) -> Any | None:
    """Acceptance rate of each position: depth and rank among the siblings, a panel for each method
    whose draft tokens have siblings. None where none has."""
    rows = [
        row
        for row in report["results"]
        if row["strategy"] in labels and row.get("positions") and _tried(row, 1, 2)
    ]
    if not rows:
        return None
    down = math.ceil(len(rows) / _ACROSS)
    figure = new_figure(1.8 + 1.1 * down)
    panels = figure.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False)
    most = max(_draw(axes, row) for axes, row in zip(panels.flat, rows, strict=False))
    for axes in panels.flat[len(rows) :]:
        axes.remove()
    for axes in panels.flat[: len(rows)]:
        axes.set_ylim(0, 1)
        axes.set_xticks(range(1, most + 1, 1 + most // 9))
        axes.set_xlim(0.6, most + 0.4)
    for axes in panels.flat[max(0, len(rows) - _ACROSS) : len(rows)]:
        axes.tick_params(labelbottom=True)
    for axes in panels[-1][: len(rows) - _ACROSS * (down - 1)]:
        axes.set_xlabel("depth (levels below the root)")
    figure.supylabel("acceptance rate", fontsize=7)
    what = (
        "of draft tokens whose parent was accepted (n: all of them);\n"
        "rank: among the siblings, by confidence; bar: 95 % interval;\n"
        f"ranks to {SHOWN_RANKS}, depths to {SHOWN_DEPTHS}; positions with n < {FEWEST} left out"
    )
    headline(figure, report, what)
    legend(figure, max(panels.flat[: len(rows)], key=lambda axes: len(axes.containers)))
    return figure


def _draw(axes: Any, row: Mapping[str, Any]) -> int:
    """A line for each rank; the deepest level that is shown."""
    deepest = 1
    for rank in range(1, SHOWN_RANKS + 1):
        points = []
        for depth, accepted in enumerate(row["positions"]["accepted"][:SHOWN_DEPTHS], 1):
            n = _tried(row, depth, rank)
            if n >= FEWEST or depth == rank == 1:
                rate = accepted[rank - 1] / n
                points.append((depth, rate, *_wilson(rate, n)))
        if not points:
            continue
        depths, rates, lows, highs = zip(*points, strict=True)
        axes.errorbar(
            [depth + _APART * (rank - (1 + SHOWN_RANKS) / 2) for depth in depths],
            rates,
            yerr=(lows, highs),
            color=COLOURS[rank - 1],
            marker=MARKERS[rank - 1],
            markersize=2.5,
            linewidth=0.9,
            elinewidth=0.7,
            label=f"rank {rank}",
        )
        deepest = max(deepest, *depths)
    n = sum(map(sum, row["positions"]["tried"]))
    axes.set_title(f"{row['strategy']} (n = {n:,})", fontsize=SMALL, pad=3)
    return deepest


def _tried(row: Mapping[str, Any], depth: int, rank: int) -> int:
    """Draft tokens at a position."""
    by_depth = row["positions"]["tried"]
    of_level = by_depth[depth - 1] if depth <= len(by_depth) else []
    return int(of_level[rank - 1]) if rank <= len(of_level) else 0


def _wilson(rate: float, n: int) -> tuple[float, float]:
    """How far the ends of Wilson's 95 % interval of a rate are from it."""
    z = 1.96
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, rate - middle + half), max(0.0, middle + half - rate)
