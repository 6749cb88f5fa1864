"""What each part of auto brings: tau with every part off in turn, beside published eagle2.

    python benchmarks/ablation.py --data PROMPTS --prompts 10 --json OUT.json
    python benchmarks/ablation.py --data PROMPTS --prompts 10 --wall-clock --json OUT.json

Without --wall-clock all trees have depth 6, 10 nodes a level and the budget of the column, so that
only calibration and coupling differ, but for one line: auto with the same budget for up to 12
levels. tau and identity do not depend on how fast the machine is. With it, eagle2's budgets run
beside auto, with and without costs and lookup, interleaved, by specdec.bench.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from side_by_side import Reference, circumstances, prompts_in_turns, steps
from transformers.utils import logging

from specdec import Engine
from specdec.bench import Prompt, Settings
from specdec.bench import run as run_bench

PUBLISHED, AUTO = "eagle2, published", "auto"
PARTS: dict[str, dict[str, int]] = {
    AUTO: {},
    "auto, 12 levels": {"depth": 12},
    "auto, not calibrated": {"calibrated": False},
    "auto, not coupled": {"coupled": False},
    "auto, neither": {"calibrated": False, "coupled": False},
}


def fixed_trees(base: Engine, budget: int) -> dict[str, Engine]:
    """The engines of one column of the table of tau."""
    published = {"depth": 6, "top_k": 10, "budget": budget}
    tree = {"depth": 6, "width": 10, "children": 10, "budget": budget, "costs": False}
    return {
        PUBLISHED: base.with_strategy("eagle2", options={"policy": published}),
        **{
            label: base.with_strategy("auto", options={"policy": {**tree, **parts}})
            for label, parts in PARTS.items()
        },
    }


def costed_trees(base: Engine, budgets: list[int]) -> dict[str, Engine]:
    """The engines whose speed is compared."""
    return {
        **{
            f"eagle2, {budget}": base.with_strategy(
                "eagle2", options={"policy": {"depth": 6, "top_k": 10, "budget": budget}}
            )
            for budget in budgets
        },
        AUTO: base.with_strategy("auto"),
        "auto, no costs": base.with_strategy("auto", options={"policy": {"costs": False}}),
        "auto, no lookup": base.with_strategy("auto", options={"policy": {"lookup": False}}),
    }


def tau(
    engine: Engine, prompts: list[Prompt], reference: Reference, **settings: Any
) -> dict[str, Any]:
    """tau over all prompts, and how many texts are plain decoding's."""
    committed = verifications = identical = 0
    for prompt in prompts:
        text: list[int] = []
        for step in steps(engine, prompt, **settings):
            text += step.new_tokens[0]
            verifications += 1
        committed += len(text)
        identical += reference.same(prompt, settings["temperature"], text)
    return {"tau": committed / verifications, "identical": identical, "texts": len(prompts)}


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """tau, and how it compares with published eagle2, as a table in Markdown."""
    cells = [(budget, t) for budget, by_t in results.items() for t in by_t]
    labels = list(results[cells[0][0]][cells[0][1]])
    head = " | ".join(f"{budget} draft tokens, T={t}" for budget, t in cells)
    lines = [f"| strategy | {head} | identical to plain |", "|---|" + "---|" * (len(cells) + 1)]
    for label in labels:
        row, same, texts = [], 0, 0
        for budget, t in cells:
            found = results[budget][t][label]
            ratio = found["tau"] / results[budget][t][PUBLISHED]["tau"]
            row.append(f"{found['tau']:.2f} ({ratio:.2f}x)")
            same, texts = same + found["identical"], texts + found["texts"]
        lines.append(f"| {label} | {' | '.join(row)} | {same}/{texts} |")
    return "\n".join(lines)


def speeds(base: Engine, prompts: list[Prompt], given: argparse.Namespace) -> dict[str, Any]:
    """Wall-clock at each temperature; prints a table."""
    reports: dict[str, Any] = {}
    print(
        "| temperature | strategy | tau | tokens/s | speedup | identical to plain |\n"
        "|---|---|---|---|---|---|"
    )
    for temperature in given.temperature:
        report = run_bench(
            costed_trees(base, given.budgets),
            prompts,
            Settings(
                max_new_tokens=given.max_new_tokens,
                temperature=temperature,
                repetitions=given.repetitions,
            ),
            transformers=False,
        )
        for result in report.results:
            print(
                f"| {temperature:g} | {result.strategy} | {result.tau:.2f} "
                f"| {result.tokens_per_second:.1f} | {result.speedup.median:.2f}x "
                f"| {result.identical_prompts}/{result.prompts} |"
            )
        print(f"| {temperature:g} | plain again | | | {report.noise.median:.2f}x | |")
        reports[f"{temperature:g}"] = asdict(report)
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl prompt sets")
    parser.add_argument("--prompts", type=int, default=10, help="prompts of each set")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0, 0.7, 1.0])
    parser.add_argument(
        "--budgets", type=int, nargs="+", help="default: 60 12, with --wall-clock 4 8 16 32 60"
    )
    parser.add_argument("--wall-clock", action="store_true", help="speed; needs a quiet machine")
    parser.add_argument("--repetitions", type=int, default=3, help="with --wall-clock")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", default=None, help="alias, folder or hub id")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="all results")
    given = parser.parse_args()
    given.budgets = given.budgets or ([4, 8, 16, 32, 60] if given.wall_clock else [60, 12])
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()

    base = Engine(given.model, dtype=given.dtype, strategy="plain")
    new = given.max_new_tokens
    prompts = prompts_in_turns(given.data, base, given.prompts, new)
    report = {**circumstances(base, prompts), "max_new_tokens": new}
    if given.wall_clock:
        report["results"] = speeds(base, prompts, given)
    else:
        reference = Reference(lambda p, t: steps(base, p, new_tokens=new, temperature=t))
        results: dict[str, dict[str, dict[str, Any]]] = {}
        with Progress(console=Console(stderr=True)) as bar:
            runs = len(given.budgets) * len(given.temperature) * (1 + len(PARTS))
            task = bar.add_task("strategies", total=runs)
            for budget in given.budgets:
                engines = fixed_trees(base, budget)
                for temperature in given.temperature:
                    cell = results.setdefault(str(budget), {}).setdefault(f"{temperature:g}", {})
                    for label, engine in engines.items():
                        cell[label] = tau(
                            engine, prompts, reference, new_tokens=new, temperature=temperature
                        )
                        bar.advance(task)
        report["results"] = results
        print(table(results))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
