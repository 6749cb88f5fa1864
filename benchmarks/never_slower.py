"""auto beside plain decoding where drafting cannot pay: is it ever slower?

    python benchmarks/never_slower.py --data PROMPTS --threads 1

Three cases at temperature 0 and 1: random tokens, a head of random weights, a batch of 8. Both run
in turns on the embedded model; ratios are of whole calls, set-up and prefill included. The first
call of a batch size pays for timing the target's forwards, so it is listed apart.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from specdec import Engine
from specdec.bench import load_sets
from specdec.bench.prompts import encode_sets

RANDOM_PROMPTS, RANDOM_LENGTH, ROWS, LONGEST = 6, 60, 8, 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of .jsonl prompt sets")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    plain = Engine(strategy="plain")
    sets = load_sets(given.data)
    encoded = encode_sets(sets, plain, max_new_tokens=given.max_new_tokens, count=2)
    prompts = [list(prompt.token_ids) for prompt in encoded]
    size = (RANDOM_PROMPTS, RANDOM_LENGTH)
    noise = torch.randint(10, plain.target.vocab_size, size, generator=generator).tolist()
    batch = [prompt[-LONGEST:] for prompt in prompts[:ROWS]]
    cases = {
        "random-token prompts": ([[prompt] for prompt in noise], False),
        "head of random weights": ([[prompt] for prompt in prompts[:RANDOM_PROMPTS]], True),
        f"batch of {ROWS}": ([batch], False),
    }
    print("| case | temperature | first call | median of the others | identical to plain |")
    print("|---|---|---|---|---|")
    for name, (calls, random_head) in cases.items():
        for temperature in (0.0, 1.0):
            auto = plain.with_strategy("auto")
            if random_head:
                _scramble(auto, generator)
            ratios, same = [], 0
            for turn in range(max(2, given.repetitions) * len(calls)):
                ratio, identical = _compare(
                    plain, auto, calls[turn % len(calls)], turn, given, temperature
                )
                ratios.append(ratio)
                same += identical
                print(f"{name}, call {turn + 1}: {ratio:.2f}", file=sys.stderr)
            rest = statistics.median(ratios[1:])
            equal = f"{same}/{len(ratios)}"
            print(f"| {name} | {temperature:g} | {ratios[0]:.2f}x | {rest:.2f}x | {equal} |")


def _scramble(engine: Engine, generator: torch.Generator) -> None:
    with torch.no_grad():
        for weight in engine.parts.drafter.head.parameters():  # type: ignore[union-attr]
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))


def _compare(
    plain: Engine,
    auto: Engine,
    prompts: list[list[int]],
    turn: int,
    given: argparse.Namespace,
    temperature: float,
) -> tuple[float, bool]:
    """tokens/s of auto over plain's, and whether the tokens are equal; who begins takes turns."""
    rates, texts = {}, {}
    for engine in (plain, auto) if turn % 2 == 0 else (auto, plain):
        started = time.perf_counter()
        results = engine.generate(
            prompts, max_new_tokens=given.max_new_tokens, temperature=temperature, seed=3
        )
        seconds = time.perf_counter() - started
        texts[engine] = [result.token_ids for result in results]
        rates[engine] = sum(map(len, texts[engine])) / seconds
    return rates[auto] / rates[plain], texts[auto] == texts[plain]


if __name__ == "__main__":
    main()
