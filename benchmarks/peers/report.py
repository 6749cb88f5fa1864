"""Medians and ratios of the runs, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lineup import BASELINE, OURS

from specdec.bench.differences import first_difference
from specdec.bench.peers.protocol import Decoded
from specdec.bench.prompt_sets import Prompt
from specdec.bench.run_statistics import Run, ratio, tokens_per_second


@dataclass
class Record:
    """Everything that one decoder did.

    Attributes:
        runs: one for each prompt in each repetition.
        tokens: new tokens by index of the prompt, of the first repetition.
    """

    runs: list[Run] = field(default_factory=list)
    tokens: dict[int, list[int]] = field(default_factory=dict)

    def add(self, repetition: int, prompt: int, decoded: Decoded) -> None:
        """Take in one prompt."""
        count = len(decoded.tokens)
        self.tokens.setdefault(prompt, decoded.tokens)
        self.runs.append(
            Run(repetition, prompt, decoded.seconds, count, (), decoded.steps, peak_memory=0)
        )


def results(records: Mapping[str, Record], prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """One entry for each decoder, compared with transformers' ``generate``."""
    base = records[BASELINE]
    found = []
    for label, record in records.items():
        rate, extent = tokens_per_second(record.runs)
        speed = ratio(record.runs, base.runs)
        differences = [
            {"set": prompts[i].set, "prompt": prompts[i].index, "position": at}
            for i, tokens in record.tokens.items()
            if (at := first_difference(tokens, base.tokens[i])) is not None
        ]
        found.append(
            {
                "strategy": label,
                "tau": sum(r.new_tokens for r in record.runs)
                / sum(r.steps or 0 for r in record.runs),
                "tokens_per_second": rate,
                "tokens_per_second_range": extent,
                "speedup": speed.median,
                "speedup_over_prompts": speed.over_prompts,
                "speedup_over_repetitions": speed.over_repetitions,
                "identical": not differences,
                "identical_prompts": len(record.tokens) - len(differences),
                "prompts": len(record.tokens),
                "differences": differences,
            }
        )
    return found


def beside(records: Mapping[str, Record]) -> dict[str, dict[str, float]]:
    """For each strategy of specdec: the median ratio of its tokens/s to every other decoder's."""
    return {
        ours: {
            label: ratio(record.runs, other.runs).median
            for label, other in records.items()
            if label != ours
        }
        for ours, record in records.items()
        if ours.startswith(OURS)
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The tables, with what they were made on."""
    about, machine = report["settings"], report["machine"]
    inflated = report["weights"]["inflated"]
    lines = [
        f"{report['date']}, {machine['processor']}, {machine['cores']} cores, {about['threads']} "
        f"threads, {about['dtype']}, temperature 0, batch 1, at most {about['max_new_tokens']} new "
        f"tokens, {report['results'][0]['prompts']} prompts, repetitions: {about['repetitions']}, "
        "in turns.",
        *([f"Weights inflated to {inflated}."] if inflated else []),
        f"Command: `{report['command']}`",
        "",
        f"| decoder | tau | tokens/s | beside {BASELINE} | identical to {BASELINE} |",
        "|---|---|---|---|---|",
    ]
    for entry in report["results"]:
        lines.append(
            f"| {entry['strategy']} | {entry['tau']:.2f} | {entry['tokens_per_second']:.1f} | "
            f"{entry['speedup']:.2f}x | {entry['identical_prompts']}/{entry['prompts']} |"
        )
    ours = report["beside"]
    if ours:
        others = [e["strategy"] for e in report["results"] if not e["strategy"].startswith(OURS)]
        lines += [
            "",
            "| tokens/s beside | " + " | ".join(ours) + " |",
            "|---|" + "---|" * len(ours),
        ]
        lines += [
            f"| {other} | " + " | ".join(f"{ratios[other]:.2f}x" for ratios in ours.values()) + " |"
            for other in others
        ]
    lines += ["", *(f"Skipped: {label}: {why}" for label, why in report["skipped"].items())]
    return "\n".join(lines).rstrip() + "\n"
