"""Reports as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from specdec.bench.benchmark_report import Mean, Means, Ratio, Report, Result

_RATIOS = ("speedup", "beside_transformers")
_SETTINGS = ("temperature", "batch_size")
_OF_RELIABILITY = ("count", "ece", "bias")


def as_json(report: Report) -> dict[str, Any]:
    """One object: ``results`` (a contender each), ``by_set``, ``means``, and everything about the
    runs."""
    about = {
        f.name: getattr(report, f.name)
        for f in fields(report)
        if f.name not in ("results", "by_set", "means", "noise")
    }
    return {
        "results": [as_row(result) for result in report.results],
        "by_set": [_without_curves(as_row(result)) for result in report.by_set],
        "means": [_means(each) for each in report.means],
        "noise": {**_ratio("ratio", report.noise), "quiet": report.quiet},
        **about,
    }


def as_row(result: Result) -> dict[str, Any]:
    """A result with its ratios as numbers, their spreads beside them."""
    found: dict[str, Any] = {}
    for name in (f.name for f in fields(result)):
        value = getattr(result, name)
        if name in _RATIOS:
            found |= _ratio(name, value)
        elif name == "differences":
            found[name] = [asdict(difference) for difference in value]
        elif name in ("alpha", "tried"):
            found[name] = list(value)
        elif name == "outcomes":
            found["reliability"] = value.reliability.summary() if value else None
            found["positions"] = asdict(value.positions) if value else None
        elif name == "peak_memory":
            found["peak_memory_bytes"] = value
        elif name == "facts":
            found |= value
        else:
            found[name] = value
    found["milliseconds_per_step"] = result.milliseconds_per_step
    found["share"] = result.share
    return found


def _means(means: Means) -> dict[str, Any]:
    """As a row of the prompt set "mean"."""
    found: dict[str, Any] = {"strategy": means.strategy, "set": "mean"}
    for name in ("tau", *_RATIOS):
        mean: Mean | None = getattr(means, name)
        found |= {name: mean.value if mean else None}
        found |= {f"{name}_interval": mean.interval if mean else None}
    return found


def _without_curves(row: dict[str, Any]) -> dict[str, Any]:
    """Of one prompt set: what the draft tokens came to, not each bin and each position."""
    found = dict(row)
    del found["positions"]
    if found["reliability"]:
        found["reliability"] = {k: v for k, v in found["reliability"].items() if k != "curve"}
    return found


def all_as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """A report alone, or ``reports``, one for each temperature and batch size."""
    found = [as_json(report) for report in reports]
    return found[0] if len(found) == 1 else {"reports": found}


def as_csv(reports: Sequence[Report]) -> str:
    """A line for each temperature, batch size, contender and prompt set: all prompts first, then
    each set and the mean over sets, if there are several.

    Counts by position are on the lines of all prompts, as in JSON.
    """
    rows = [
        {name: report.settings[name] for name in _SETTINGS} | _flat(row)
        for report in reports
        for row in (
            *map(as_row, report.results),
            *(_without_curves(as_row(result)) for result in report.by_set),
            *map(_means, report.means if report.by_set else ()),
        )
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _ratio(name: str, ratio: Ratio | None) -> dict[str, Any]:
    return {
        name: ratio.median if ratio else None,
        f"{name}_over_prompts": ratio.over_prompts if ratio else None,
        f"{name}_over_repetitions": ratio.over_repetitions if ratio else None,
        f"{name}_interval": ratio.interval if ratio else None,
    }


def _by_position(counts: Mapping[str, Any]) -> dict[str, Any]:
    """``positions_tried_2_1``: of depth 2 and rank 1; ``positions_accepted_2_1`` likewise."""
    return {
        f"positions_{name}_{depth}_{rank}": count
        for name, table in counts.items()
        for depth, of_level in enumerate(table, 1)
        for rank, count in enumerate(of_level, 1)
    }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Ranges as two columns, phases, depths and positions as one each; what has no place in a cell
    is left out."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith(("_range", "_over_prompts", "_over_repetitions", "_interval")):
            found[f"{name}_low"], found[f"{name}_high"] = value or (None, None)
        elif name in ("seconds", "share", "milliseconds_per_step"):
            found |= {f"{name}_{phase}": each for phase, each in (value or {}).items()}
        elif name in ("alpha", "tried"):
            found |= {f"{name}_{depth}": each for depth, each in enumerate(value, 1)}
        elif name == "reliability":
            found |= {f"{name}_{each}": (value or {}).get(each) for each in _OF_RELIABILITY}
        elif name == "positions":
            found |= _by_position(value or {})
        elif not isinstance(value, (dict, list)):
            found[name] = value
    return found
