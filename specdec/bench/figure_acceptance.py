"""The figure of acceptance by depth of the draft token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specdec.bench.figure_style import FEWEST, headline, legend, marked_line, new_figure


def acceptance(report: Mapping[str, Any], labels: Sequence[str]) -> Any | None:
    """Acceptance rate by depth of the draft token, a line for each method that drafts."""
    rows = [row for row in report["results"] if row["strategy"] in labels and row["alpha"]]
    if not rows:
        return None

    figure = new_figure(3.2 + 0.13 * ((len(rows) + 1) // 2))
    axes = figure.subplots()
    most = 1
    for index, row in enumerate(rows):
        pairs = zip(row["alpha"], row["tried"], strict=True)
        rates = [rate for rate, tried in pairs if tried >= FEWEST] or row["alpha"][:1]
        most = max(most, len(rates))
        axes.plot(
            range(1, len(rates) + 1),
            rates,
            **marked_line(index),
            label=f"{row['strategy']} (n = {row['tried'][0]:,})",
        )
    axes.set_xticks(range(1, most + 1, 1 + most // 17))
    axes.set_ylim(0, 1)
    axes.set_xlabel("depth of the draft token (levels below the root)")
    axes.set_ylabel("acceptance rate")
    what = f"n: steps with a draft token at depth 1; depths with n < {FEWEST} left out"
    headline(figure, report, what)
    legend(figure, axes)
    return figure
