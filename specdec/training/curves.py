"""Curves of a run as a picture."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss, held-out agreement by depth, and tau, over steps."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in ("loss", "agreement", "tau") if any(kind in e for e in history)]
    if not kinds:
        return
    figure = Figure(figsize=(4.2 * len(kinds), 3.2), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        entries = [entry for entry in history if kind in entry]
        steps = [entry["step"] for entry in entries]
        if kind == "agreement":
            for depth, values in enumerate(zip(*(e[kind] for e in entries), strict=True), 1):
                axes.plot(steps, values, marker="o", markersize=3, label=f"depth {depth}")
            axes.legend(fontsize=7)
            axes.set_title("held-out agreement", fontsize=10)
        else:
            axes.plot(steps, [entry[kind] for entry in entries], marker="o" * (kind == "tau"))
            axes.set_title(kind, fontsize=10)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130, format="png")
