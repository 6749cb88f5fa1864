"""The figures of a comparison, drawn from its results as JSON alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from specdec.bench.benchmark_report import PLAIN
from specdec.bench.figure_acceptance import acceptance
from specdec.bench.figure_batches import batches
from specdec.bench.figure_positions import positions
from specdec.bench.figure_reliability import reliability
from specdec.bench.figure_style import RC
from specdec.bench.figure_sweep import SWEPT, sweep
from specdec.bench.figure_tasks import tasks
from specdec.bench.setting_names import at_settings


def draw_figures(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what there is to draw: for each temperature, of the first batch size, and of all.

    Args:
        results: ``reports``, each as ``as_json`` gives it, and ``ablations``, the labels of those
            that belong to the ablations alone.

    Returns:
        The files, in the order of the page.
    """
    from matplotlib import rc_context

    drawn: list[Path] = []
    with rc_context(RC):
        for path, figure in _figures(results, folder):
            if figure is not None:
                _save(figure, path)
                drawn.append(path)
    return drawn


def _save(figure: Any, path: Path) -> None:
    """In as few colours as it has, which takes a third of the bytes."""
    from PIL import Image  # comes with matplotlib

    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=200)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(128).save(path, optimize=True)


def _figures(results: Mapping[str, Any], folder: Path) -> Iterator[tuple[Path, Any | None]]:
    reports = results["reports"]
    first = reports[0]["settings"]["batch_size"]
    for report in reports:
        settings = report["settings"]
        if settings["batch_size"] != first:
            continue
        temperature = settings["temperature"]
        same = [each for each in reports if each["settings"]["temperature"] == temperature]
        labels = [row["strategy"] for row in report["results"]]
        labels = [label for label in labels if label not in results.get("ablations", ())]
        compared = [label for label in labels if label != PLAIN]
        figures = {
            "tasks": tasks(report, compared),
            "acceptance": acceptance(report, compared),
            "positions": positions(report, compared),
            "reliability": reliability(report, compared),
            **{option: sweep(report, option) for option in SWEPT},
        }
        for name, figure in figures.items():
            yield at_settings(folder / f"{name}.png", temperature, first), figure
        yield at_settings(folder / "batches.png", temperature), batches(same, labels)
