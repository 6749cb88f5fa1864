"""How much of a step is outside the networks: wall-clock time by module forwards.

    python benchmarks/overhead.py --data PROMPTS --dtype bfloat16 --inflate 240m --threads 2

Everything that runs in no module's forward counts as outside: building trees and masks, acceptance,
commits, and the interpreter between them. Strategies are interleaved; medians over repetitions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module

from specdec import Engine
from specdec.bench import load_sets
from specdec.cli.compared_engines import make_engines
from specdec.cli.strategy_choice import StrategyChoice
from specdec.plugin.registry import Registry

CHOICES = {
    "plain": StrategyChoice("plain"),
    "eagle2, published": StrategyChoice(
        "eagle2", {}, {"policy": {"depth": 6, "top_k": 10, "budget": 60}}
    ),
    "eagle2, fitted": StrategyChoice(
        "eagle2", {}, {"policy": {"depth": 5, "top_k": 2, "budget": 8}}
    ),
    "chain": StrategyChoice("chain"),
    "auto": StrategyChoice("auto", {}, {"policy": {"size_by_cost": False}}),
}


@contextmanager
def network_time() -> Iterator[list[float]]:
    """Within, seconds in outermost module forwards are added up."""
    spent, depth, started = [0.0], 0, 0.0

    def enter(_: nn.Module, __: Any) -> None:
        nonlocal depth, started
        depth += 1
        if depth == 1:
            started = time.perf_counter()

    def leave(_: nn.Module, __: Any, ___: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            spent[0] += time.perf_counter() - started

    hooks = (
        module.register_module_forward_pre_hook(enter),
        module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def measure(engine: Engine, prompts: list[str], new: int, temperature: float) -> dict[str, float]:
    """Milliseconds a step after the prefill, and the share of them outside the networks."""
    inside = total = 0.0
    steps = 0
    for prompt in prompts:
        running = engine.session().start(
            prompt, max_new_tokens=new, temperature=temperature, seed=1
        )
        with network_time() as spent:
            for number, _ in enumerate(running):
                if number == 0:  # the first step has the prefill in it
                    spent[0], first = 0.0, time.perf_counter()
                steps += number > 0
            total += time.perf_counter() - first
            inside += spent[0]
    return {"ms_per_step": 1e3 * total / steps, "outside": 1 - inside / total, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of prompt sets")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--inflate", default=None, help="a preset of specdec.bench")
    parser.add_argument("--pack", action="store_true", help="weights laid out for the CPU")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    prompts = [prompt_set.texts[0] for prompt_set in load_sets(given.data)]
    loading = {"model": None, "dtype": given.dtype, "pack": given.pack}
    with tempfile.TemporaryDirectory() as heads:
        engines = make_engines(Registry.load(), CHOICES, loading, given.inflate, Path(heads))
        found: dict[str, list[dict[str, float]]] = {label: [] for label in engines}
        for repetition in range(given.repetitions + 1):
            for label, engine in engines.items():
                figures = measure(engine, prompts, given.max_new_tokens, given.temperature)
                if repetition:
                    found[label].append(figures)
    rows = {
        label: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for label, runs in found.items()
    }
    print("| strategy | ms a step | outside the networks |\n|---|---|---|")
    for label, row in rows.items():
        print(f"| {label} | {row['ms_per_step']:.2f} | {row['outside']:.1%} |")
    if given.json:
        settings = {key: str(value) for key, value in vars(given).items() if key != "data"}
        given.json.write_text(json.dumps({"settings": settings, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
