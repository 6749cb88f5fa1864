"""Let the target answer corpus prompts: text of its own distribution, on which the drafters
train."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from common import encode_prompts, load_llama, load_tokenizer, log, read_examples, read_json_lines
from torch import Tensor
from transformers import (
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

# Share of the batches by task.
SHARES = {"chat": 0.25, "code": 0.2, "math": 0.2, "instruct": 0.15, "summary": 0.12, "qa": 0.08}


@dataclass
class Row:
    """A prompt and its continuation: ``tokens[start:]`` was generated."""

    tokens: list[int]
    start: int
    task: str
    temperature: float
    batch: int


@dataclass
class Batch:
    """Prompts of one task and similar length, to be continued at one temperature."""

    number: int
    task: str
    prompts: list[list[int]]
    temperature: float


def prompts_by_task(
    tokenizer: PreTrainedTokenizerBase, path: Path, longest: int, random_: random.Random
) -> dict[str, list[list[int]]]:
    """Distinct encoded prompts, shuffled, then sorted by length within stretches of 512."""
    texts: dict[str, list[str]] = defaultdict(list)
    for example in read_examples(path):
        if example.is_chat:
            texts[example.task].append(example.prompt)
    found: dict[str, list[list[int]]] = {}
    for task, prompts in texts.items():
        distinct = list(dict.fromkeys(prompts))
        random_.shuffle(distinct)
        encoded = [p for p in encode_prompts(tokenizer, distinct) if len(p) <= longest]
        found[task] = [
            p for i in range(0, len(encoded), 512) for p in sorted(encoded[i : i + 512], key=len)
        ]
    return found


def rows_of_batch(prompt_length: int, new_tokens: int, slots: int) -> int:
    """As many rows as keep the key-value cache within ``slots`` entries, at most 128."""
    return max(1, min(128, slots // (prompt_length + new_tokens)))


def cut(
    prompts: list[list[int]], new_tokens: int, slots: int, random_: random.Random
) -> list[list[list[int]]]:
    """Batches of neighbours in length, in random order."""
    batches: list[list[list[int]]] = []
    at = 0
    while at < len(prompts):
        ahead = prompts[at : at + 128]
        rows = rows_of_batch(max(map(len, ahead[:32])), new_tokens, slots)
        batches.append(ahead[:rows])
        at += rows
    random_.shuffle(batches)
    return batches


def plan(prompts: dict[str, list[list[int]]], args: argparse.Namespace) -> Iterator[Batch]:
    """Batches in a fixed order for a seed, tasks drawn by their share, until prompts run out."""
    random_ = random.Random(args.seed)
    waiting = {t: cut(p, args.new_tokens, args.slots, random_) for t, p in sorted(prompts.items())}
    number = 0
    while any(waiting.values()):
        tasks = [t for t, batches in waiting.items() if batches]
        task = random_.choices(tasks, [SHARES.get(t, 0.1) for t in tasks])[0]
        greedy = random_.random() < args.greedy_share
        temperature = 0.0 if greedy else random_.uniform(args.coolest, 1.0)
        yield Batch(number, task, waiting[task].pop(), round(temperature, 3))
        number += 1


def next_tokens(logits: Tensor, temperature: float) -> Tensor:
    """Greedy at 0, otherwise drawn from the tempered distribution."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]


@torch.inference_mode()
def continue_batch(
    model: PreTrainedModel, batch: Batch, new_tokens: int, end: int, pad: int
) -> list[list[int]]:
    """Continuations, up to and including ``end``; finished rows leave the batch in groups."""
    width = max(map(len, batch.prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in batch.prompts])
    seen = ids != pad
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    alive = list(range(len(ids)))  # the prompt each row belongs to
    found: list[list[int]] = [[] for _ in alive]
    finished = torch.zeros(len(ids), dtype=torch.bool)
    cache = DynamicCache()
    for _ in range(new_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=seen.long(),
            position_ids=positions,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits[:, -1]
        drawn = next_tokens(logits.float(), batch.temperature)
        for row, token in enumerate(drawn.tolist()):
            if not finished[row]:
                found[alive[row]].append(token)
        finished |= drawn == end
        positions = positions[:, -1:] + 1
        if finished.sum() >= max(1, len(alive) // 8):
            kept = (~finished).nonzero()[:, 0]
            if len(kept) == 0:
                break
            cache.batch_select_indices(kept)
            alive = [alive[i] for i in kept.tolist()]
            drawn, seen, positions = drawn[kept], seen[kept], positions[kept]
            finished = finished[kept]
        ids = drawn[:, None]
        seen = torch.cat([seen, torch.ones_like(ids, dtype=torch.bool)], 1)
    return found


def write_rows(path: Path, rows: list[Row]) -> None:
    """Replace ``path`` by a gzip file of one JSON object a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".tmp")
    with gzip.open(fresh, "wt", compresslevel=3) as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
    os.replace(fresh, path)


def generate(args: argparse.Namespace) -> list[Row]:
    """Rows of an earlier run, then new ones until the time or the tokens are spent."""
    tokenizer = load_tokenizer(args.target)
    model = load_llama(args.target, torch.bfloat16)
    rows = [Row(**r) for r in read_json_lines(args.out)] if args.out.exists() else []
    done = max((row.batch for row in rows), default=-1)
    random_ = random.Random(args.seed)
    split = args.data / f"{args.split}.jsonl.gz"
    prompts = prompts_by_task(tokenizer, split, args.longest_prompt, random_)
    made = sum(len(row.tokens) - row.start for row in rows)
    began = saved = time.monotonic()
    for batch in plan(prompts, args):
        if batch.number <= done:
            continue
        if made >= args.tokens or time.monotonic() - began > 60 * args.minutes:
            break
        torch.manual_seed(args.seed + batch.number)
        texts = continue_batch(
            model, batch, args.new_tokens, tokenizer.eos_token_id, tokenizer.pad_token_id
        )
        made += sum(map(len, texts))
        rows += [
            Row(prompt + text, len(prompt), batch.task, batch.temperature, batch.number)
            for prompt, text in zip(batch.prompts, texts, strict=True)
        ]
        if time.monotonic() - saved > 60:
            write_rows(args.out, rows)
            saved = time.monotonic()
        seconds = time.monotonic() - began
        log(
            f"batch {batch.number}  {batch.task} x{len(texts)} at {batch.temperature}"
            f"  {made:,} tokens  {seconds:.0f} s"
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, required=True, help="directory of the target model")
    parser.add_argument(
        "--data", type=Path, required=True, help="directory of {train,valid}.jsonl.gz"
    )
    parser.add_argument("--split", choices=("train", "valid"), default="train")
    parser.add_argument(
        "--out", type=Path, required=True, help="a .jsonl.gz file; resumed if there"
    )
    parser.add_argument("--minutes", type=float, default=10, help="time of this run")
    parser.add_argument("--tokens", type=int, default=2_000_000, help="new tokens in all")
    parser.add_argument("--new-tokens", type=int, default=256, help="longest continuation")
    parser.add_argument("--longest-prompt", type=int, default=1400, help="longer ones are left out")
    parser.add_argument("--slots", type=int, default=40_000, help="rows x length of a batch")
    parser.add_argument("--greedy-share", type=float, default=0.5, help="the rest is sampled")
    parser.add_argument("--coolest", type=float, default=0.7, help="temperatures: from this to 1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = generate(args)
    write_rows(args.out, rows)
    log(f"done: {len(rows):,} rows, {sum(len(r.tokens) - r.start for r in rows):,} new tokens")


if __name__ == "__main__":
    main()
