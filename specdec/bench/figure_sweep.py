"""The figure of tau and speedup against an option of the draft tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from specdec.bench.figure_style import COLOURS, bars, headline, new_figure, prompts_measured

SWEPT = {
    "budget": "budget (draft tokens verified a step)",
    "depth": "depth (levels of the draft tree)",
    "top_k": "top_k (nodes expanded a level)",
}


def sweep(report: Mapping[str, Any], option: str) -> Any | None:
    """tau and speedup, as means over prompt sets, against an option of the tree policy, of the
    methods that differ in nothing else; None where there are no two of them."""
    points = _swept(report, option)
    if len(points) < 2:
        return None
    label = points[0][1]["strategy"].partition(":")[0]
    n = prompts_measured(report)
    figure = new_figure(3.4)
    panels = figure.subplots(2, 1, sharex=True)
    measures = {
        "tau": "tau (tokens per\ntarget forward)",
        "speedup": "speedup over plain\n(ratio of tokens/s)",
    }
    means = {row["strategy"]: row for row in report["means"]}
    shown = [means[row["strategy"]] for _, row in points]
    values = [value for value, _ in points]
    for axes, colour, (measure, caption) in zip(panels, COLOURS, measures.items(), strict=False):
        axes.errorbar(
            values,
            [row[measure] for row in shown],
            yerr=bars(shown, measure),
            color=colour,
            marker="o",
            markersize=3,
            linewidth=1,
            capsize=2,
            elinewidth=0.8,
        )
        axes.set_ylim(
            0, 1.15 * max((row[f"{measure}_interval"] or [row[measure]])[-1] for row in shown)
        )
        axes.set_ylabel(caption)
    panels[1].set_xticks(values)
    panels[1].set_xlabel(f"{SWEPT[option]}\n{label}, n = {n} prompts")
    what = f"{_others(points[0][1], option)}; means over prompt sets; bars: 95 % interval"
    headline(figure, report, what)
    return figure


def _swept(report: Mapping[str, Any], option: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The largest group of results that differ in this option alone, by its value."""
    groups: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row, policy in _with_policy(report):
        if option in policy:
            rest = {name: value for name, value in policy.items() if name != option}
            key = repr((row["parts"], row["options"].get("drafter"), rest))
            groups.setdefault(key, {}).setdefault(policy[option], row)
    largest = max(groups.values(), key=len, default={})
    return sorted(largest.items(), key=lambda pair: pair[0])


def _with_policy(
    report: Mapping[str, Any],
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for row in report["results"]:
        if policy := row.get("options", {}).get("policy"):
            yield row, policy


def _others(row: Mapping[str, Any], option: str) -> str:
    """What does not change in a sweep."""
    policy = row["options"]["policy"]
    return ", ".join(f"{n} {policy[n]}" for n in SWEPT if n != option and n in policy)
