"""The page of benchmarks/divergence.py: tables of a report."""

from __future__ import annotations

from typing import Any


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    counts = ", ".join(f"{d} {n}" for d, n in report["prompts_a_set"].items())
    lines = [
        f"# Where {report['model']} parts from plain decoding",
        "",
        f"{report['date']}, {report['machine']}. torch {report['torch']}, transformers "
        f"{report['transformers']}, threads: {report['threads']}, batch 1, "
        f"{report['max_new_tokens']} new tokens, {len(report['sets'])} prompt sets; prompts of "
        f"each: {counts}. The acceptor is `match`; a strategy and `plain` have the same seed.",
        "",
        f"Command: `{report['command']}`",
        "",
        "`parted`: prompts whose texts differ somewhere. `positions`: tokens compared, up to and "
        "with the first that differs. `gap`: how far plain decoding's token led at a parting, in "
        "logits at temperature 0, in log-probability with the race's noise at temperature 1. "
        "`near ties`: positions whose lead is within twice the largest difference of a logit "
        "there, so that a parting is possible.",
        "",
        "| dtype | temperature | strategy | parted | positions | partings per 1,000 | "
        "near ties per 1,000 | largest gap |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dtype, by_temperature in report["results"].items():
        for temperature, by_label in by_temperature.items():
            for label, cell in by_label.items():
                gap = cell["largest_gap_at_a_parting"]
                lines.append(
                    f"| {dtype} | {temperature} | {label} | {cell['parted']}/{cell['prompts']} "
                    f"| {cell['positions']:,} | {cell['per_thousand']:.2f} "
                    f"| {cell['near_ties_per_thousand']:.2f} | "
                    + ("none |" if gap is None else f"{gap:.2g} |")
                )
    lines += [
        "",
        "The cause: |logit of the tree forward - logit of the forward over one token| at the same "
        "positions. `largest`: over the vocabulary at a position. An ulp is that of the best "
        "logit there, in the dtype.",
        "",
        "| dtype | temperature | median | largest, median | largest, maximum | in ulp, median | "
        "in ulp, maximum |",
        "|---|---|---|---|---|---|---|",
    ]
    for dtype, by_temperature in report["results"].items():
        for temperature, by_label in by_temperature.items():
            found = by_label["all"]["logit_difference"]
            lines.append(
                f"| {dtype} | {temperature} | {found['median_over_the_vocabulary']:.1e} "
                f"| {found['largest_at_a_position_median']:.1e} "
                f"| {found['largest_at_a_position_max']:.1e} "
                f"| {found['largest_at_a_position_median_ulp']:.1f} "
                f"| {found['largest_at_a_position_max_ulp']:.1f} |"
            )
    cells = [by["all"] for by_t in report["results"].values() for by in by_t.values()]
    parted = sum(cell["parted"] for cell in cells)
    within = sum(cell["partings_within_the_shift"] for cell in cells)
    lines += [
        "",
        f"Of {parted} partings, {within} have a gap no larger than the shift of the two logits "
        "against each other between the two forwards.",
    ]
    return "\n".join(lines)
