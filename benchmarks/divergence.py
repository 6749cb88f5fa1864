"""Where a strategy's tokens part from plain decoding's, how often, and why, in each dtype.

Under `match` both draw the same token in exact arithmetic. For every prompt the strategy and
`plain` decode with one seed; up to the first token that differs their prefixes are equal, so every
position compares the logits of a forward over a tree with those of a forward over one token.

    python benchmarks/divergence.py --data PROMPTS --prompts 10 --json OUT.json > OUT.md

PROMPTS is a folder of .jsonl files, one prompt set each, with a field "prompt" on every line.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from divergence_page import markdown
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import Tensor
from transformers.utils import logging

from specdec import Engine
from specdec.bench import load_sets
from specdec.bench.machine import machine, versions
from specdec.cli.paper_contenders import PUBLISHED
from specdec.decoding.randomness import Key, Stream

STRATEGIES: dict[str, dict[str, Any]] = {
    "eagle2, 60 draft tokens": {"strategy": "eagle2", "options": {"policy": PUBLISHED}},
    "eagle2, fitted": {"strategy": "eagle2"},
    "static_tree": {"strategy": "static_tree"},
    "chain": {"strategy": "chain"},
}
DTYPES = ("bfloat16", "float32", "float64")
TEMPERATURES = (0.0, 1.0)


@dataclass(frozen=True)
class Trace:
    """One decoded prompt.

    Attributes:
        tokens: the new tokens.
        logits: ``[T, V]`` float64, the target's logits that each of them was drawn from.
        noise: ``[T, V]`` float64, ``-log E`` of the exponential noise E of each position.
    """

    tokens: list[int]
    logits: Tensor
    noise: Tensor


def decode(engine: Engine, prompt: str, settings: dict[str, Any]) -> Trace:
    """Decode one prompt and keep the logits at the nodes that were visited."""
    chat = [{"role": "user", "content": prompt}]
    generation = engine.session().start(chat, **settings)
    first = generation.state.host_lengths[0]
    tokens: list[int] = []
    logits = []
    for step in generation:
        new = step.new_tokens[0]
        nodes = step.kept[0, : len(new)]
        logits.append(step.verification.logits[0, nodes].double())
        tokens += new
    at = torch.arange(first, first + len(tokens))
    vocabulary = torch.arange(engine.target.vocab_size)
    noise = [
        generation.state.randomness.exponential(Key(Stream.TARGET, t[None]), vocabulary)[0]
        for t in at
    ]
    return Trace(tokens, torch.cat(logits), -torch.stack(noise).log())


@dataclass
class Tally:
    """One strategy in one dtype at one temperature, added up.

    Attributes:
        prompts: how many were decoded.
        largest: at each compared position, the largest difference of a logit over the vocabulary.
        median: at each compared position, the median of these differences.
        ulp: at each compared position, the unit in the last place of the best logit.
        gaps: at each compared position, how far the two best scores of plain decoding are apart.
        partings: what is known of every prompt whose texts part.
    """

    prompts: int = 0
    largest: list[float] = field(default_factory=list)
    median: list[float] = field(default_factory=list)
    ulp: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    partings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, ours: Trace, plain: Trace, temperature: float, dtype: torch.dtype) -> None:
        """Compare two texts up to and including the first token that differs."""
        self.prompts += 1
        pairs = list(zip(ours.tokens, plain.tokens, strict=False))
        parts = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        compared = len(pairs) if parts is None else parts + 1
        moved = ours.logits[:compared] - plain.logits[:compared]
        scores = plain.logits[:compared]
        if temperature:
            scores = scores / temperature + plain.noise[:compared]
        best = scores.topk(2, dim=1).values
        magnitude = plain.logits[:compared].amax(dim=1).abs().log2().floor().exp2()
        self.largest += moved.abs().amax(dim=1).tolist()
        self.median += moved.abs().median(dim=1).values.tolist()
        self.ulp += (magnitude * torch.finfo(dtype).eps).tolist()
        self.gaps += (best[:, 0] - best[:, 1]).tolist()
        if parts is not None:
            mine, other = pairs[parts]
            shift = float(moved[parts, mine] - moved[parts, other])
            self.partings.append(
                {
                    "position": parts,
                    "gap": float(scores[parts, other] - scores[parts, mine]),
                    "shift": shift / temperature if temperature else shift,
                    "ulp": self.ulp[-1],
                }
            )

    def summary(self) -> dict[str, Any]:
        """Rates and differences; None where there is nothing to say."""
        largest, ulp = torch.tensor(self.largest), torch.tensor(self.ulp)
        close = (largest > 0) & (torch.tensor(self.gaps) <= 2 * largest)
        return {
            "prompts": self.prompts,
            "parted": len(self.partings),
            "positions": len(self.largest),
            "per_thousand": 1000 * len(self.partings) / len(self.largest),
            "near_ties_per_thousand": 1000 * float(close.double().mean()),
            "largest_gap_at_a_parting": max((p["gap"] for p in self.partings), default=None),
            "partings_within_the_shift": sum(p["gap"] <= p["shift"] for p in self.partings),
            "logit_difference": {
                "median_over_the_vocabulary": float(torch.tensor(self.median).median()),
                "largest_at_a_position_median": float(largest.median()),
                "largest_at_a_position_max": float(largest.max()),
                "largest_at_a_position_median_ulp": float((largest / ulp).median()),
                "largest_at_a_position_max_ulp": float((largest / ulp).max()),
            },
            "partings": self.partings,
        }


def merged(tallies: list[Tally]) -> Tally:
    """Several as one."""
    total = Tally(prompts=sum(tally.prompts for tally in tallies))
    for name in ("largest", "median", "ulp", "gaps", "partings"):
        setattr(total, name, [entry for tally in tallies for entry in getattr(tally, name)])
    return total


def load(folder: Path, engine: Engine, room: int, count: int) -> dict[str, list[str]]:
    """The first ``count`` prompts of each set that have no more than ``room`` tokens."""
    return {
        prompts.name: [t for t in prompts.texts if len(engine.tokenizer(t)["input_ids"]) < room][
            :count
        ]
        for prompts in load_sets(folder)
    }


def run(
    plain: Engine, sets: dict[str, list[str]], new_tokens: int, bar: Progress, task: TaskID
) -> dict[str, dict[str, dict[str, Any]]]:
    """Every strategy against plain decoding: summaries by temperature and strategy."""
    engines = {label: plain.with_strategy(**choice) for label, choice in STRATEGIES.items()}
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for temperature in TEMPERATURES:
        tallies = {label: Tally() for label in engines}
        for name, prompts in sets.items():
            for seed, prompt in enumerate(prompts):
                settings = {"max_new_tokens": new_tokens, "temperature": temperature, "seed": seed}
                reference = decode(plain, prompt, settings)
                for label, engine in engines.items():
                    tally = tallies[label]
                    known = len(tally.partings)
                    trace = decode(engine, prompt, settings)
                    tally.add(trace, reference, temperature, plain.target.dtype)
                    for parting in tally.partings[known:]:
                        parting.update({"set": name, "prompt": seed})
                bar.advance(task)
        everything = {**tallies, "all": merged(list(tallies.values()))}
        results[f"{temperature:g}"] = {k: tally.summary() for k, tally in everything.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl prompt sets")
    parser.add_argument("--prompts", type=int, default=10, help="prompts of each set")
    parser.add_argument("--float64-prompts", type=int, help="in float64; by default as many")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="repeatable; all if none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default=None, help="alias, folder or hub id")
    parser.add_argument("--json", type=Path, help="all results; written after each dtype")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    dtypes = arguments.dtype or list(DTYPES)
    counts = dict.fromkeys(dtypes, arguments.prompts)
    command = (
        f"python benchmarks/divergence.py --data PROMPTS --prompts {arguments.prompts} "
        f"--max-new-tokens {arguments.max_new_tokens}"
    )
    if arguments.float64_prompts is not None and "float64" in counts:
        counts["float64"] = arguments.float64_prompts
        command += f" --float64-prompts {arguments.float64_prompts}"
    command += "".join(f" --dtype {dtype}" for dtype in arguments.dtype or ())
    here = machine(torch.device("cpu"))
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": "{processor}, {architecture}, {cores} cores".format_map(here),
        **versions(),
        "command": command,
        "threads": arguments.threads,
        "prompts_a_set": counts,
        "max_new_tokens": arguments.max_new_tokens,
        "results": {},
    }
    with Progress(console=Console(stderr=True)) as bar:
        tasks = {dtype: bar.add_task(dtype, total=None) for dtype in dtypes}
        for dtype, task in tasks.items():
            plain = Engine(arguments.model, dtype=dtype, strategy="plain")
            room = plain.target.context_limit - arguments.max_new_tokens - 16
            sets = load(arguments.data, plain, room, counts[dtype])
            bar.update(task, total=len(TEMPERATURES) * sum(map(len, sets.values())))
            report["model"], report["sets"] = plain.model_name, list(sets)
            found = run(plain, sets, arguments.max_new_tokens, bar, task)
            report["results"][dtype] = found
            if arguments.json:
                arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(markdown(report))


if __name__ == "__main__":
    main()
