"""The figures of a comparison, drawn from its results as JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdec.bench.benchmark_report import PLAIN
from specdec.bench.figure_acceptance import acceptance
from specdec.bench.figure_style import RC
from specdec.bench.figure_sweep import SWEPT, sweep
from specdec.bench.figure_tasks import tasks
from specdec.bench.temperature_names import at_temperature


def draw_figures(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what there is to draw, for each temperature.

    Args:
        results: ``reports``, each as ``as_json`` gives it, and ``ablations``, the labels of those
            that belong to the ablations alone.

    Returns:
        The files, in the order of the page.
    """
    from matplotlib import rc_context

    drawn: list[Path] = []
    ablations = results.get("ablations", ())
    for report in results["reports"]:
        temperature = report["settings"]["temperature"]
        compared = [row["strategy"] for row in report["results"]]
        compared = [label for label in compared if label not in (PLAIN, *ablations)]
        with rc_context(RC):
            figures = {
                "tasks": tasks(report, compared),
                "acceptance": acceptance(report, compared),
                **{option: sweep(report, option) for option in SWEPT},
            }
            for name, figure in figures.items():
                if figure is not None:
                    drawn.append(at_temperature(folder / f"{name}.png", temperature))
                    figure.savefig(drawn[-1], dpi=200)
    return drawn
