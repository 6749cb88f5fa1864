"""What the figures have in common: width, colours, marks, legend and title."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from specdec.bench.setting_names import settings_text
from specdec.errors import OptionError, install_extra

# Okabe and Ito's palette, without its yellow, which is hardly seen on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "<", "X")
INK, GRID = "#222222", "#dddddd"
TEXT_AS_IT_IS: dict[Any, Any] = {"text.parse_math": False}  # labels and sets may have a $
RC: dict[Any, Any] = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    **TEXT_AS_IT_IS,
}
SMALL = 6.5
FEWEST = 20  # a rate of fewer is no rate
_WIDTH = 3.4  # inches: a column of a paper


def check_matplotlib() -> None:
    """Refuse before the runs what could not be drawn after them.

    Raises:
        OptionError: matplotlib is missing.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError(f"figures need matplotlib: {install_extra('bench')}")


def new_figure(height: float) -> Any:
    """A figure as wide as a column, ``height`` inches high."""
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def line_style(index: int) -> dict[str, Any]:
    """Of the line of index i in a figure: no two of 7 have one colour, nor of 21 one look."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": ("-", "--", ":")[index // len(COLOURS) % 3],
        "linewidth": 0.8,
    }


def marked_line(index: int) -> dict[str, Any]:
    """The same with marks on it: filled ones on the first 7, on others hollow ones, and no colour
    with the mark that it had before."""
    again = index // len(COLOURS)
    return {
        **line_style(index),
        "marker": MARKERS[(index + 3 * again) % len(MARKERS)],
        "markersize": 3,
        "markeredgewidth": 0.8,
        **({"markerfacecolor": "white"} if again else {}),
    }


def bars(rows: Sequence[Mapping[str, Any]], measure: str) -> list[list[float]] | None:
    """How far below and above a measure of rows its interval reaches; None where none has any."""
    ends = [(row[measure], *(row.get(f"{measure}_interval") or [row[measure]] * 2)) for row in rows]
    if all(low == high for _, low, high in ends):
        return None
    return [  # an interval of a skewed measure may leave it out
        [max(0.0, value - low) for value, low, _ in ends],
        [max(0.0, high - value) for value, _, high in ends],
    ]


def legend(figure: Any, axes: Any) -> None:
    """The labels of ``axes`` below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=6,
        columnspacing=1.2,
        handletextpad=0.4,
    )


def headline(figure: Any, report: Mapping[str, Any], what: str) -> None:
    """Model, settings and date of a report as JSON above the figure, and below them ``what``."""
    done = done_to_networks(report.get("pack"), report.get("compile"))
    settings = report["settings"]
    lines = (
        f"{Path(report['model']).name}, {report['dtype']} on {report['device']}{done}, "
        f"{report['date'][:10]}",
        f"{settings_text(settings)}, at most {settings['max_new_tokens']} new tokens a turn",
        what,
    )
    figure.suptitle("\n".join(lines), fontsize=SMALL, x=0.02, ha="left")


def done_to_networks(pack: bool | None, compile: bool | None) -> str:
    """``, packed``: as it follows in a title; nothing where they are as they are."""
    return ", packed" * bool(pack) + ", compiled" * bool(compile)


def prompts_measured(report: Mapping[str, Any]) -> int:
    """The prompts of all sets that were reached."""
    return int(report["results"][0]["prompts"])
