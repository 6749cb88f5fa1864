"""auto beside plain decoding where drafting cannot pay: is it ever slower?

    python benchmarks/never_slower.py --data PROMPTS --threads 1
    python benchmarks/never_slower.py --data PROMPTS --threads 1 --cpu-time

Random tokens, a head of random weights, batches of 8, each at temperature 0 and 1, and the first
call of a new engine on a text of a few tokens. Both strategies run in turns on the embedded model.

*Faster* is tokens/s over tokens/s, each of all calls but the first together, set-up and prefill
included: a random prompt may end its text after three tokens, and a median over calls would give
such a text the weight of a long one. The first call of an engine is listed apart.

With --cpu-time seconds are those that the thread was on a processor, for what is measured and for
what auto measures itself: a machine that runs other programs then disturbs less. One thread only.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from transformers.utils import logging

from specdec import Engine
from specdec.bench import load_sets
from specdec.bench.prompt_sets import encode_sets

RANDOM_PROMPTS, RANDOM_LENGTH, BATCHES, LONGEST, FEW = 6, 60, 3, 200, 8
OF_A_SET = 4
Calls = list[list[list[int]]]


@dataclass
class Runs:
    """Seconds and tokens of plain and of auto, call by call, and whether texts were the same."""

    plain: list[tuple[float, int]] = field(default_factory=list)
    auto: list[tuple[float, int]] = field(default_factory=list)
    same: int = 0

    def ratio(self, part: slice) -> float:
        """auto's tokens/s over plain's."""
        rates = []
        for runs in (self.auto[part], self.plain[part]):
            rates.append(sum(n for _, n in runs) / sum(seconds for seconds, _ in runs))
        return rates[0] / rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl prompt sets")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cpu-time", action="store_true", help="needs --threads 1")
    given = parser.parse_args()
    if given.cpu_time and given.threads != 1:
        parser.error("--cpu-time counts one thread: give --threads 1 with it")
    if given.threads:
        torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    clock = time.thread_time if given.cpu_time else time.perf_counter
    with mock.patch("time.perf_counter", clock):
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Run all cases; print a table."""
    generator = torch.Generator().manual_seed(0)
    plain = Engine(strategy="plain")
    new = given.max_new_tokens
    encoded = encode_sets(load_sets(given.data), plain, max_new_tokens=new, count=OF_A_SET)
    prompts = [list(prompt.token_ids) for prompt in encoded]
    short = [prompt[-LONGEST:] for prompt in prompts]
    size = (RANDOM_PROMPTS, RANDOM_LENGTH)
    noise = torch.randint(10, plain.target.vocab_size, size, generator=generator).tolist()
    cases: dict[str, Calls] = {
        "random-token prompts": [[prompt] for prompt in noise],
        "head of random weights": [[prompt] for prompt in prompts[::OF_A_SET]],
        f"batches of {len(short) // BATCHES}": [short[start::BATCHES] for start in range(BATCHES)],
    }
    print("| case | temperature | first call | faster | identical to plain |")
    print("|---|---|---|---|---|")
    for temperature in (0.0, 1.0):
        for name, calls in cases.items():
            auto = plain.with_strategy("auto")
            if name.startswith("head"):
                _scramble(auto, generator)
            runs = Runs()
            for turn in range(1 + max(1, given.repetitions) * len(calls)):
                _compare(runs, plain, auto, calls[turn % len(calls)], turn, new, temperature)
            rest = f"{runs.ratio(slice(1, None)):.2f}x"
            _line(name, temperature, f"{runs.ratio(slice(0, 1)):.2f}x", rest, runs)
        runs = Runs()
        for turn, prompt in enumerate(short):
            fresh = plain.with_strategy("auto")
            _compare(runs, plain, fresh, [prompt], turn, FEW, temperature)
        _line(f"{FEW} tokens", temperature, f"{runs.ratio(slice(None)):.2f}x", "", runs)


def _line(name: str, temperature: float, first: str, rest: str, runs: Runs) -> None:
    same = f"{runs.same}/{len(runs.auto)}"
    print(f"| {name} | {temperature:g} | {first} | {rest} | {same} |", flush=True)


def _scramble(engine: Engine, generator: torch.Generator) -> None:
    with torch.no_grad():
        for weight in engine.parts.drafter.head.parameters():  # type: ignore[union-attr]
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))


def _compare(
    runs: Runs,
    plain: Engine,
    auto: Engine,
    prompts: list[list[int]],
    turn: int,
    new: int,
    temperature: float,
) -> None:
    """One call of both; who begins takes turns."""
    texts = {}
    for engine in (plain, auto) if turn % 2 == 0 else (auto, plain):
        started = time.perf_counter()
        results = engine.generate(prompts, max_new_tokens=new, temperature=temperature, seed=turn)
        seconds = time.perf_counter() - started
        texts[engine] = [result.token_ids for result in results]
        own = runs.auto if engine is auto else runs.plain
        own.append((seconds, sum(map(len, texts[engine]))))
    runs.same += texts[auto] == texts[plain]


if __name__ == "__main__":
    main()
