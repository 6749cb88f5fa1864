"""transformers' ``generate`` with specdec inside, beside its own ways of decoding.

    OMP_NUM_THREADS=1 python benchmarks/inside_generate.py --data FOLDER --json result.json
    python benchmarks/inside_generate.py --model chat-7m --assistant FOLDER --drafter eagle

Greedy, batch 1, a bound on new tokens and no end-of-text; specdec's ways with the weights as they
are and packed. All ways run in turns, every other time backwards. By set: new tokens a second, the
median over prompts of the ratio to transformers' own greedy decoding, and whether the tokens are
the same. The clock is CPU seconds of this process unless told otherwise, so that other processes
disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from side_by_side import circumstances
from transformers import AutoModelForCausalLM

import specdec.hf
from specdec import Engine
from specdec.bench.built_in_prompts import MIXED
from specdec.bench.differences import first_difference
from specdec.bench.prompt_files import load_sets
from specdec.bench.prompt_sets import encode_sets
from specdec.plugin.registry import Registry

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
OWN = "transformers"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--drafter", help="of the strategy auto: its name for the model, or a folder"
    )
    parser.add_argument("--strategies", nargs="+", default=["auto", "lookup"])
    parser.add_argument("--assistant", type=Path, help="folder of a small model, for assisted too")
    parser.add_argument("--data", type=Path, help="prompt files; the built-in prompts without it")
    parser.add_argument("--count", type=int, help="prompts of each set")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def ways(given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Arguments of ``generate`` by the name of the way."""
    found: dict[str, dict[str, Any]] = {OWN: {}, "prompt lookup": {"prompt_lookup_num_tokens": 10}}
    if given.assistant:
        assistant = AutoModelForCausalLM.from_pretrained(
            given.assistant, dtype=given.dtype, trust_remote_code=False
        )
        found["assisted"] = {"assistant_model": assistant}
    alias = Registry.load().models.get(given.model)
    known = alias.drafters if alias else {}
    drafters = {"auto": known.get(given.drafter, given.drafter)}
    for name in given.strategies:
        for pack in (False, True):
            decoder = specdec.hf.decoder(name, drafters.get(name), pack=pack)
            found[f"specdec {name}" + ", packed" * pack] = {"custom_generate": decoder}
    return found


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    loaded = Engine(given.model, strategy="plain", dtype=given.dtype)
    model, clock, new = loaded.target.model, CLOCKS[given.clock], given.max_new_tokens
    sets = load_sets(given.data) if given.data else [MIXED]
    prompts = encode_sets(sets, loaded, max_new_tokens=new, count=given.count)
    bound = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    compared = ways(given)

    def run(way: str, tokens: tuple[int, ...]) -> tuple[float, list[int]]:
        ids = torch.tensor([tokens])
        started = clock()
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **bound, **compared[way])
        return clock() - started, output[0, len(tokens) :].tolist()

    for way in compared:  # engines are built, and what is slow once is over
        run(way, prompts[0].token_ids)
    seconds: dict[tuple[str, str], list[float]] = {}
    ratios: dict[tuple[str, str], list[float]] = {}
    same: dict[tuple[str, str], list[bool]] = {}
    order = list(compared)
    for _ in range(given.repetitions):
        for prompt in prompts:
            taken = {way: run(way, prompt.token_ids) for way in order}
            order.reverse()
            for way, (each, tokens) in taken.items():
                key = prompt.set, way
                seconds.setdefault(key, []).append(each)
                ratios.setdefault(key, []).append(taken[OWN][0] / each)
                same.setdefault(key, []).append(first_difference(tokens, taken[OWN][1]) is None)
    rows = [
        {
            "set": key[0],
            "way": key[1],
            "prompts": len(each) // given.repetitions,
            "tokens_per_second": new * len(each) / sum(each),
            "ratio": statistics.median(ratios[key]),
            "same": sum(same[key]) // given.repetitions,
        }
        for key, each in seconds.items()
    ]
    for row in rows:
        print(
            f"{row['set']}, {row['way']}: {row['tokens_per_second']:.1f} tokens/s, "
            f"{row['ratio']:.2f}x, the same tokens on {row['same']} of {row['prompts']}"
        )
    if given.json:
        record = {**circumstances(loaded, prompts), "rows": rows}
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
