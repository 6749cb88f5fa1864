"""Strategies side by side on prompt sets: tau, speedup over plain decoding, and identity to it.

One interleaved run: for every prompt each strategy decodes once, in an order that rotates, so that
a busy machine slows all of them alike.

    python benchmarks/prompt_sets.py --data PROMPTS --prompts 20 --max-new-tokens 128 --out results

PROMPTS is a folder of .jsonl files, one prompt set each, with a field "prompt" on every line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.progress import track

import specdec
from specdec.session import Session

PAPER = {"policy": {"depth": 6, "top_k": 10, "budget": 60}}


@dataclass
class Run:
    """One strategy on one prompt set, added up."""

    tokens: int = 0
    forwards: int = 0
    seconds: float = 0.0
    identical: int = 0
    prompts: int = 0
    ratios: list[float] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tried: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    differences: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tau(self) -> float:
        """Tokens committed per target forward."""
        return self.tokens / max(self.forwards, 1)

    @property
    def rate(self) -> float:
        """Tokens a second, prefill included."""
        return self.tokens / self.seconds


def contenders(engine: specdec.Engine, only: list[str]) -> dict[str, specdec.Engine]:
    """The strategies by label, ``plain`` first."""
    everything: dict[str, dict[str, Any]] = {
        "plain": {"strategy": "plain"},
        "eagle2, 60 draft tokens": {"strategy": "eagle2", "options": PAPER},
        "eagle2, fitted": {"strategy": "eagle2"},
        "static tree, 25 draft tokens": {"strategy": "static_tree"},
        "chain": {"strategy": "chain"},
        "draft model": {"strategy": "draft_model"},
        "draft model, match": {"strategy": "draft_model", "acceptor": "match"},
    }
    if unknown := set(only) - everything.keys():
        sys.exit(f"no label {', '.join(unknown)}: choose from {', '.join(everything)}")
    return {
        label: engine.with_strategy(**choice)
        for label, choice in everything.items()
        if not only or label == "plain" or label in only
    }


def logit_gap(engine: specdec.Engine, prompt: list[int], tokens: list[int]) -> float:
    """The gap between the two best logits of the token that follows."""
    with torch.inference_mode():
        ids = torch.tensor([prompt + tokens], device=engine.target.device)
        best = engine.target.model(input_ids=ids).logits[0, -1].float().topk(2).values
    return float(best[0] - best[1])


def first_difference(
    engine: specdec.Engine, prompt: list[int], ours: list[int], plain: list[int]
) -> dict[str, Any]:
    """Where two outputs part, and how near a tie the target was there."""
    at = next(
        (i for i, (a, b) in enumerate(zip(ours, plain, strict=False)) if a != b),
        min(len(ours), len(plain)),
    )
    return {"position": at, "logit_gap": logit_gap(engine, prompt, plain[:at])}


def run_set(
    engines: dict[str, specdec.Engine], prompts: list[str], settings: dict[str, Any], name: str
) -> dict[str, Run]:
    """Every strategy on every prompt of a set, batch 1."""
    runs = {label: Run() for label in engines}
    labels = list(engines)
    for index, prompt in enumerate(track(prompts, description=f"{name:12}")):
        order = labels[index % len(labels) :] + labels[: index % len(labels)]
        outputs = {}
        for label in order:
            generation = Session(engines[label]).start(
                [{"role": "user", "content": prompt}], seed=index, **settings
            )
            for _ in generation:
                pass
            outputs[label] = (generation, generation.results()[0])
        plain_generation, plain = outputs["plain"]
        ids = plain_generation.state.tokens[0, : plain.prompt_tokens].tolist()
        for label, (_, result) in outputs.items():
            run, stats = runs[label], result.stats
            run.tokens += stats.new_tokens
            run.forwards += stats.target_forwards
            run.seconds += stats.seconds["total"]
            run.prompts += 1
            run.ratios.append(stats.tokens_per_second / plain.stats.tokens_per_second)
            for phase, seconds in stats.seconds.items():
                run.phases[phase] += seconds
            if result.token_ids == plain.token_ids:
                run.identical += 1
            elif engines[label].parts.acceptor.seed_exact or not settings["temperature"]:
                difference = first_difference(
                    engines["plain"], ids, result.token_ids, plain.token_ids
                )
                run.differences.append({"prompt": index, **difference})
    return runs


def run_ragged(
    engines: dict[str, specdec.Engine], prompts: list[str], settings: dict[str, Any]
) -> dict[str, bool]:
    """Whether each strategy's batch equals plain decoding's batch, all prompts in one."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    outputs = {
        label: [r.token_ids for r in engine.generate(chats, seed=7, **settings)]
        for label, engine in engines.items()
    }
    return {label: rows == outputs["plain"] for label, rows in outputs.items()}


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    sets, labels = report["sets"], report["labels"]
    lines = [
        f"# {report['title']}",
        "",
        f"{report['date']}, {report['machine']}. torch {report['torch']}, transformers "
        f"{report['transformers']}, {report['threads']} threads, {report['dtype']}, temperature "
        f"{report['temperature']}, {report['prompts']} prompts a set, "
        f"{report['max_new_tokens']} new tokens, batch 1.",
        "",
        f"Command: `{report['command']}`",
        "",
        "Each cell: tau / median of the speedup over `plain` on the same prompt.",
        "",
        "| strategy | " + " | ".join(sets) + " | all |",
        "|---|" + "---|" * (len(sets) + 1),
    ]
    for label in labels:
        cells = [report["results"][name][label] for name in [*sets, "all"]]
        row = " | ".join(f"{c['tau']:.2f} / {c['speedup']:.2f}x" for c in cells)
        lines.append(f"| {label} | {row} |")
    lines += ["", "| strategy | tokens/s | identical to plain | draft | verify | accept | commit |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for label in labels:
        cell = report["results"]["all"][label]
        share = cell["phase_share"]
        lines.append(
            f"| {label} | {cell['tokens_per_second']:.0f} | {cell['identical']}/{cell['prompts']} "
            + "".join(f"| {share[p]:.0%} " for p in ("draft", "verify", "accept", "commit"))
            + "|"
        )
    differences = report["differences"]
    lines += ["", f"Differences from plain decoding under `match`: {len(differences)}."]
    lines += [
        f"- {d['strategy']}, {d['set']} prompt {d['prompt']}: token {d['position']}, "
        f"gap between the two best logits {d['logit_gap']:.2e}"
        for d in differences
    ]
    return "\n".join(lines) + "\n"


def settings_of(engine: specdec.Engine) -> dict[str, Any]:
    """The options of every part, without where its checkpoint lies."""
    return {
        role: {name: value for name, value in options.items() if name != "checkpoint"}
        for role, options in engine.selection.options.items()
    }


def summary(run: Run) -> dict[str, Any]:
    """One cell."""
    spread = statistics.quantiles(run.ratios, n=4) if len(run.ratios) > 1 else [0, 0, 0]
    return {
        "tau": run.tau,
        "tokens": run.tokens,
        "target_forwards": run.forwards,
        "tokens_per_second": run.rate,
        "speedup": statistics.median(run.ratios),
        "speedup_quartiles": [spread[0], spread[2]],
        "identical": run.identical,
        "prompts": run.prompts,
        "phase_share": {p: s / run.phases["total"] for p, s in run.phases.items()},
    }


def merged(runs: list[Run]) -> Run:
    """Several sets as one."""
    total = Run()
    for run in runs:
        for name in ("tokens", "forwards", "seconds", "identical", "prompts"):
            setattr(total, name, getattr(total, name) + getattr(run, name))
        total.ratios += run.ratios
        for phase, seconds in run.phases.items():
            total.phases[phase] += seconds
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl prompt sets")
    parser.add_argument("--prompts", type=int, default=20, help="prompts of each set")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", default=None, help="alias, folder or hub id")
    parser.add_argument("--only", action="append", default=[], help="a label; repeatable")
    parser.add_argument("--ragged", action="store_true", help="only compare one ragged batch a set")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.json and OUT.md")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    engine = specdec.Engine(arguments.model, dtype=arguments.dtype)
    engines = contenders(engine, arguments.only)
    settings = {
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
    }
    room = engine.target.context_limit - arguments.max_new_tokens
    sets = {}
    for path in sorted(arguments.data.glob("*.jsonl")):
        rows = [json.loads(line)["prompt"] for line in path.open(encoding="utf-8")]
        fitting = [r for r in rows if len(engine.tokenizer(r)["input_ids"]) < room - 16]
        sets[path.stem] = fitting[: arguments.prompts]
    if not sets:
        sys.exit(f"there is no .jsonl file in {arguments.data}")

    if arguments.ragged:
        same = {name: run_ragged(engines, rows, settings) for name, rows in sets.items()}
        arguments.out.with_suffix(".json").write_text(json.dumps(same, indent=2) + "\n")
        for name, by_label in same.items():
            print(name, by_label)
        return
    for warm in engines.values():
        warm.generate("warm up", **settings)
    runs = {name: run_set(engines, rows, settings, name) for name, rows in sets.items()}
    runs["all"] = {
        label: merged([by_label[label] for by_label in runs.values()]) for label in engines
    }
    report = {
        "title": f"Prompt sets on {engine.model_name}",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "command": "python benchmarks/prompt_sets.py --data PROMPTS "
        f"--prompts {arguments.prompts} --max-new-tokens {arguments.max_new_tokens} "
        f"--temperature {arguments.temperature:g} --dtype {arguments.dtype}",
        "prompts": arguments.prompts,
        "max_new_tokens": arguments.max_new_tokens,
        "temperature": arguments.temperature,
        "dtype": arguments.dtype,
        "threads": arguments.threads,
        "options": {label: settings_of(e) for label, e in engines.items()},
        "sets": list(sets),
        "labels": list(engines),
        "results": {n: {k: summary(r) for k, r in by.items()} for n, by in runs.items()},
        "differences": [
            {"strategy": label, "set": name, **d}
            for name, by in runs.items()
            for label, run in by.items()
            for d in run.differences
        ],
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    arguments.out.with_suffix(".md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
