"""What the figures have in common: width, colours, marks, legend and title."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdec.bench.setting_names import described
from specdec.errors import OptionError, install_extra

# Okabe and Ito's palette, without its yellow, which is hardly seen on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, GRID = "#222222", "#dddddd"
RC: dict[Any, Any] = {"font.size": 7, "axes.linewidth": 0.6}
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


def title(report: Mapping[str, Any]) -> str:
    """Model, settings and date of a report as JSON."""
    return (
        f"{Path(report['model']).name}, {report['dtype']} on {report['device']}, "
        f"{described(report['settings'])}, {report['date'][:10]}"
    )


def prompts_in_all(report: Mapping[str, Any]) -> int:
    """The prompts of all sets."""
    return sum(report["prompts"]["sets"].values())
