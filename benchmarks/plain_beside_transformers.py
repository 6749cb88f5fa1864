"""Plain decoding, as it is and packed, beside transformers' ``generate``, in seconds of one thread.

    OMP_NUM_THREADS=1 python benchmarks/plain_beside_transformers.py --dtype float32

CPU seconds, so that other processes on the machine disturb less. All run in turns, every other time
backwards; greedy, a bound on new tokens and no end-of-text; medians over prompts and repetitions.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from specdec import Engine

QUESTIONS = (
    "What do bees do in winter?",
    "Write a Python function that returns the sum of a list of numbers.",
    "Explain why the sky is blue during the day and red at sunset.",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    new = given.max_new_tokens
    plain = Engine(given.model, strategy="plain", dtype=given.dtype)
    model, tokenizer = plain.target.model, plain.tokenizer
    packed = Engine(model, strategy="plain", tokenizer=tokenizer, pack=True)

    def theirs(tokens: list[int]) -> None:
        ids = torch.tensor([tokens])
        bound = {"max_new_tokens": new, "min_new_tokens": new, "pad_token_id": 0}
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **bound)

    def ours(engine: Engine) -> Callable[[list[int]], object]:
        bound = {"max_new_tokens": new, "temperature": 0, "eos_token_id": []}
        return lambda tokens: engine.generate(tokens, **bound)

    ways = {"transformers": theirs, "plain": ours(plain), "plain, packed": ours(packed)}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(given.repetitions):
        for question in QUESTIONS:
            messages = [{"role": "user", "content": question}]
            tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
            for name in order:
                started = time.process_time()
                ways[name](tokens["input_ids"])
                taken[name].append(time.process_time() - started)
            order.reverse()
    for name, each in taken.items():
        ratios = [a / b for a, b in zip(taken["transformers"], each, strict=True)]
        per_token = 1000 * statistics.median(each) / new
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name}: {per_token:.1f} ms a token; beside transformers {middle:.2f}x "
            f"(quartiles {low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
