"""Train the embedded target model from nothing, within a budget of minutes."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from common import (
    Example,
    encode_examples,
    load_tokenizer,
    log,
    pack,
    read_examples,
    shuffled_forever,
    special_ids,
)
from torch import Tensor
from training import CONTEXT, Run, add_training_options, train
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from specdec.files.atomic_files import replace_folder, write_json

SIZES = {
    "hidden_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 704,
}

# How often a document comes in one pass over the corpus: (task, part of the source, weight),
# the first match counts. Books are cut down, reasoning and short instructions repeated.
WEIGHTS: list[tuple[str, str, float]] = [
    ("math", "grade-school-math", 3.0),
    ("math", "", 2.0),
    ("code", "GPTeacher", 2.0),
    ("code", "MBPP", 3.0),
    ("code", "", 0.7),
    ("instruct", "", 2.5),
    ("chat", "oasst", 0.7),
    ("summary", "dolly", 3.0),
    ("qa", "OpenTriviaQA", 0.5),
    ("text", "", 0.2),
    ("", "", 1.0),
]


def weight_of(example: Example) -> float:
    """How often this example comes in one pass."""
    return next(
        w for task, source, w in WEIGHTS if task in ("", example.task) and source in example.source
    )


def new_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama with random weights."""
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        **ids,
        **SIZES,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, **ids)
    return model


def next_token_loss(model: LlamaForCausalLM, window: Tensor) -> Tensor:
    """Mean cross-entropy of each token of ``[B, n]`` windows given those before it."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=window, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden)
    return F.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())


def joined(
    documents: Iterator[list[int]], user: int, random_: random.Random
) -> Iterator[list[int]]:
    """One dialogue in ten loses its ``<|bos|>`` and so continues the document before it.

    That is how the model sees several turns.
    """
    for document in documents:
        joins = document[1] == user and random_.random() < 0.1
        yield document[1:] if joins else document


@dataclass
class Corpus:
    """Training documents with their weights, and held-out windows."""

    documents: list[list[int]]
    weights: list[float]
    held_out: list[Tensor]  # windows [8, 512]
    user: int  # the mark of a user's turn

    def windows(self, length: int, batch: int, seed: int) -> Iterator[Tensor]:
        """Endless training windows."""
        stream = shuffled_forever(self.documents, self.weights, seed)
        return pack(joined(stream, self.user, random.Random(seed)), length, batch)


def load_corpus(tokenizer: PreTrainedTokenizerBase, data: Path) -> Corpus:
    """Encode the corpus."""
    examples = read_examples(data / "train.jsonl.gz")
    documents = encode_examples(tokenizer, examples)
    weights = [weight_of(e) for e in examples]
    held_out = encode_examples(tokenizer, read_examples(data / "valid.jsonl.gz"))
    return Corpus(
        documents,
        weights,
        list(pack(iter(held_out), 512, 8)),
        special_ids(tokenizer, "<|user|>")[0],
    )


@torch.no_grad()
def held_out_loss(loss: Callable[[Tensor], Tensor], windows: list[Tensor]) -> float:
    """Mean loss over held-out windows."""
    return sum(loss(w).item() for w in windows) / len(windows)


def publish(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the model in bf16 and its tokenizer as a directory for ``from_pretrained``."""

    def write(directory: Path) -> None:
        shipped = LlamaForCausalLM(model.config)
        shipped.load_state_dict(model.state_dict())
        shipped.to(torch.bfloat16)
        shipped.generation_config = model.generation_config
        shipped.save_pretrained(directory)
        tokenizer.save_pretrained(directory)

    replace_folder(out, write)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="directory of {train,valid}.jsonl.gz"
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer")
    parser.add_argument("--out", type=Path, required=True, help="directory of the finished model")
    add_training_options(parser)
    return parser.parse_args()


def main() -> None:
    """Train, measure, write."""
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = load_tokenizer(args.tokenizer)
    model = new_model(tokenizer)
    corpus = load_corpus(tokenizer, args.data)
    log(f"{model.num_parameters():,} parameters, {sum(map(len, corpus.documents)):,} corpus tokens")
    run = Run.of(model, args)

    def loss(window: Tensor) -> Tensor:
        return next_token_loss(model, window)

    def windows(length: int, seed: int) -> Iterator[Tensor]:
        return corpus.windows(length, max(1, args.batch_tokens // length), seed)

    def checkpoint() -> None:
        log(f"held-out loss {held_out_loss(loss, corpus.held_out[:8]):.4f} (a part)")
        run.save(args.run / "checkpoint.pt")
        publish(model, tokenizer, args.out)
        log(f"wrote {args.out}")

    compiled = torch.compile(loss, dynamic=False) if args.compile else loss
    train(run, compiled, windows, args, checkpoint)
    checkpoint()
    held_out = held_out_loss(loss, corpus.held_out)
    figures = {**run.figures(), "held_out_loss": round(held_out, 4)}
    write_json(args.run / "figures.json", figures)
    log(f"done: {figures}")


if __name__ == "__main__":
    main()
