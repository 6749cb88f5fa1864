"""The figure of the confidence of draft tokens against their acceptance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specdec.bench.figure_style import (
    FEWEST,
    INK,
    headline,
    legend,
    line_style,
    marked_line,
    new_figure,
)

# The policy whose values are confidences as the drafter states them, unless it couples drafts, and
# the one that calibrates them.
_STATED, _CALIBRATED = "eagle2", "auto"


def reliability(report: Mapping[str, Any], labels: Sequence[str]) -> Any | None:
    """Acceptance rate against confidence, the difference of the two, and how many draft tokens have
    that confidence: of the methods that grow EAGLE-2's tree, of ``auto``, and of ``auto`` without
    calibration where it ran. None where none of them did. Coupled drafts are told as such: their
    confidence is not what the drafter states, but of its scores shifted by the noise of the draw.
    """
    rows = _shown(report, labels)
    if not rows:
        return None
    figure = new_figure(5.4)
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(6, 4, 2))
    calibrated: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": ":"}
    upper.plot([0, 1], [0, 1], **calibrated, label="calibrated")
    middle.plot([0, 1], [0, 0], **calibrated)
    for index, row in enumerate(rows):
        found = row["reliability"]
        bins = [each for each in found["curve"] if each["count"] >= FEWEST]
        confidences = [each["confidence"] for each in bins]
        style = {**marked_line(index), "markersize": 2.5}
        upper.plot(
            confidences,
            [each["rate"] for each in bins],
            **style,
            label=f"{row['strategy']}{' (coupled)' * _coupled(report, row)}\n"
            f"ECE {found['ece']:.3f}, n = {found['count']:,}",
        )
        middle.plot(confidences, [each["rate"] - each["confidence"] for each in bins], **style)
        edges = [each["low"] for each in found["curve"]] + [1.0]
        counts = [each["count"] for each in found["curve"]]
        lower.stairs(counts, edges, **line_style(index))
    upper.set_ylim(-0.03, 1.03)
    upper.set_xlim(-0.02, 1.02)
    middle.set_ylabel("acceptance rate\nless confidence")
    upper.set_ylabel("acceptance rate (share of draft\ntokens that the target took)")
    lower.set_yscale("symlog", linthresh=1)
    lower.set_yticks([0, *(10**power for power in range(0, 9, 2))], minor=False)
    lower.yaxis.set_major_formatter("{x:,.0f}")
    lower.set_ylim(
        0, 2 * max(each["count"] for row in rows for each in row["reliability"]["curve"])
    )
    lower.set_ylabel("draft tokens\nin the bin (n)")
    lower.set_xlabel("confidence of the draft token\n(its value by its parent's)")
    count = len(rows[0]["reliability"]["curve"])
    what = (
        "draft tokens below nodes that the text passed through\n"
        f"ECE: expected calibration error, {count} bins; marks with n < {FEWEST} left out"
    )
    if any(_coupled(report, row) for row in rows):
        what += "\n(coupled): of draft scores shifted by the noise of the draw"
    headline(figure, report, what)
    legend(figure, upper)
    return figure


def _shown(report: Mapping[str, Any], labels: Sequence[str]) -> list[Mapping[str, Any]]:
    """As the drafter states them first, then those of coupled drafts, calibrated last."""
    stated, coupled = list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    uncalibrated, calibrated = list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    for row in report["results"]:
        policy = row.get("parts", {}).get("policy")
        if (row.get("reliability") or {}).get("ece") is None:
            continue
        if policy == _STATED and row["strategy"] in labels:
            (coupled if _coupled(report, row) else stated).append(row)
        elif policy == _CALIBRATED and not row["options"]["policy"]["calibrated"]:
            uncalibrated.append(row)
        elif policy == _CALIBRATED and row["strategy"] in labels:
            calibrated.append(row)
    return [*stated, *coupled, *uncalibrated, *calibrated]


def _coupled(report: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether drafts were ranked by the noise of the target's own draw; greedy, there is none."""
    options = row.get("options", {}).get("policy", {})
    return report["settings"]["temperature"] > 0 and bool(options.get("coupled"))
