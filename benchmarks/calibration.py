"""Is a draft child's confidence the probability that the target takes it? eagle2 beside auto.

    python benchmarks/calibration.py --data PROMPTS --prompts 10 --json OUT.json --plot OUT.png

PROMPTS is a folder of .jsonl files, one prompt set each, with a field "prompt" on every line. Both
strategies grow trees of depth 6 with 10 nodes a level and verify 60 draft tokens. At every node
that the committed text passes through, each draft child is a confidence (its value over its
parent's) with an outcome (it is the target's token, or not).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from calibration_plot import plot
from rich.console import Console
from rich.progress import Progress
from side_by_side import Reference, circumstances, prompts_in_turns, steps
from transformers.utils import logging

from specdec import Engine
from specdec.bench import Prompt
from specdec.bench.draft_outcomes import children
from specdec.bench.plot import check_plot
from specdec.bench.reliability import Reliability
from specdec.decoding.step import Step

STRATEGIES: dict[str, dict[str, Any]] = {
    "eagle2": {"policy": {"depth": 6, "top_k": 10, "budget": 60}},
    "auto": {
        "policy": {"depth": 6, "width": 10, "children": 10, "budget": 60, "size_by_cost": False}
    },
}


@dataclass
class Tally:
    """One strategy at one temperature.

    Attributes:
        all, best: confidences of all children, and of the likeliest child of each node.
        by_set: of all children, by prompt set.
        expected, realised: tokens of each step, those that end a text left out: stop rules cut
            them.
        tokens, steps: committed, and verifications.
        texts, identical: texts decoded, and those that are plain decoding's.
    """

    all: Reliability = field(default_factory=Reliability)
    best: Reliability = field(default_factory=Reliability)
    by_set: dict[str, Reliability] = field(default_factory=lambda: defaultdict(Reliability))
    expected: list[float] = field(default_factory=list)
    realised: list[int] = field(default_factory=list)
    tokens: int = 0
    steps: int = 0
    texts: int = 0
    identical: int = 0

    def text(self, engine: Engine, prompt: Prompt, **settings: Any) -> list[int]:
        """Decode one text and take it in; returns its tokens."""
        tokens: list[int] = []
        for step in steps(engine, prompt, **settings):
            confidence, outcome, _, rank = children(step)
            self.all.add(confidence, outcome)
            self.best.add(confidence[rank == 1], outcome[rank == 1])
            self.by_set[prompt.set].add(confidence, outcome)
            tokens += step.new_tokens[0]
            self.steps += 1
            if step.finish_reasons[0] is None:
                self.expected.append(expected_tokens(step))
                self.realised.append(len(step.new_tokens[0]))
        self.tokens += len(tokens)
        self.texts += 1
        return tokens

    def summary(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "tau": self.tokens / self.steps,
            "identical": self.identical,
            "texts": self.texts,
            "steps": self.steps,
            "expected_tokens": _mean(self.expected),
            "realised_tokens": _mean(self.realised),
            "children": self.all.summary(),
            "best_child": self.best.summary(),
            "ece_by_set": {name: own.summary()["ece"] for name, own in self.by_set.items()},
        }


def expected_tokens(step: Step, row: int = 0) -> float:
    """What the values of the tree promise: 1 for the bonus token and the sum over draft tokens."""
    real = step.tree.valid[row, 1:]
    return 1 + float(step.tree.log_value[row, 1:][real].double().exp().sum())


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as a table in Markdown."""
    lines = [
        "| temperature | strategy | tau | children | ECE | bias | Brier | log loss | "
        "ECE, best child | expected | realised | identical to plain |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for temperature, by_strategy in results.items():
        for name, found in by_strategy.items():
            own, best = found["children"], found["best_child"]
            scores = [own["ece"], own["bias"], own["brier"], own["log_loss"], best["ece"]]
            tokens = [found["expected_tokens"], found["realised_tokens"]]
            cells = [
                temperature,
                name,
                f"{found['tau']:.2f}",
                f"{own['count']:,}",
                *("-" if score is None else f"{score:.3f}" for score in scores),
                *("-" if mean is None else f"{mean:.2f}" for mean in tokens),
                f"{found['identical']}/{found['texts']}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl prompt sets")
    parser.add_argument("--prompts", type=int, default=10, help="prompts of each set")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0, 0.7, 1.0])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", default=None, help="alias, folder or hub id")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="all results")
    parser.add_argument("--plot", type=Path, help="reliability curves, .png, .svg or .pdf")
    given = parser.parse_args()
    if given.plot:
        check_plot(given.plot)
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()

    base = Engine(given.model, dtype=given.dtype, strategy="plain")
    prompts = prompts_in_turns(given.data, base, given.prompts, given.max_new_tokens)
    new = given.max_new_tokens
    reference = Reference(lambda p, t: steps(base, p, new_tokens=new, temperature=t))
    results: dict[str, dict[str, Any]] = {}
    with Progress(console=Console(stderr=True)) as bar:
        total = len(given.temperature) * len(given.strategies) * len(prompts)
        task = bar.add_task("texts", total=total)
        for temperature in given.temperature:
            cell = results.setdefault(f"{temperature:g}", {})
            for name in given.strategies:
                engine = base.with_strategy(name, options=STRATEGIES[name])
                tally = Tally()
                for prompt in prompts:
                    text = tally.text(engine, prompt, new_tokens=new, temperature=temperature)
                    tally.identical += reference.same(prompt, temperature, text)
                    bar.advance(task)
                cell[name] = tally.summary()
    report = {
        **circumstances(base, prompts),
        "max_new_tokens": new,
        "options": {name: STRATEGIES[name] for name in given.strategies},
        "results": results,
    }
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        plot(report, given.plot)
    print(table(results))


if __name__ == "__main__":
    main()
