"""What the scripts share: the corpus, its token layout and packing."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Example:
    """One row of the corpus; ``prompt`` is empty for plain text."""

    task: str
    source: str
    prompt: str
    response: str

    @property
    def is_chat(self) -> bool:
        """Whether the row is a prompt with an answer rather than plain text."""
        return bool(self.prompt)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a ``.jsonl`` or ``.jsonl.gz`` file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def read_examples(path: Path) -> list[Example]:
    """The corpus rows of ``path``."""
    keys = ("task", "source", "prompt", "response")
    return [Example(**{k: row[k] for k in keys}) for row in read_json_lines(path)]


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in ``directory``, without the traces of having been loaded from it.

    Code that comes with it never runs.

    Raises:
        SystemExit: a tokenizer without the marks and the layout that the scripts train on.
    """
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    check_marks(tokenizer, directory)
    for key in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def check_marks(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Refuse a tokenizer that the token layout of the scripts does not fit.

    Raises:
        SystemExit: marks that are missing, are several tokens or one and the same, that do not
            begin, end or pad a text, or a chat template that writes another layout.
    """
    told = f"the tokenizer in {directory} does not fit these scripts:"
    advice = "make one with scripts/train_tokenizer.py"
    known = tokenizer.get_vocab()
    marks = (BOS, END, PAD, "<|user|>", "<|assistant|>")
    if missing := [mark for mark in marks if mark not in known]:
        raise SystemExit(f"{told} it has no {', '.join(missing)}; {advice}")
    for mark in marks:
        if encode_texts(tokenizer, [mark])[0] != [known[mark]]:
            raise SystemExit(f"{told} {mark} is no special token of it; {advice}")
    for name, mark in (("bos", BOS), ("eos", END), ("pad", PAD)):
        if getattr(tokenizer, f"{name}_token") != mark:
            own = getattr(tokenizer, f"{name}_token")
            raise SystemExit(f"{told} its {name}_token is {own}, not {mark}; {advice}")
    if tokenizer.chat_template is None:
        raise SystemExit(f"{told} it has no chat template; {advice}")
    question = "Which layout?"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
    )
    if encode_texts(tokenizer, [rendered]) != encode_prompts(tokenizer, [question]):
        raise SystemExit(f"{told} its chat template writes another layout; {advice}")


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Token ids of each text and nothing else."""
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    return encoded


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[list[int]]:
    """Token ids of each prompt up to and including the ``<|assistant|>`` mark.

    The same ids as ``apply_chat_template(..., add_generation_prompt=True)``, in one batch.
    """
    bos, end, user, assistant = special_ids(tokenizer, BOS, END, "<|user|>", "<|assistant|>")
    return [[bos, user, *body, end, assistant] for body in encode_texts(tokenizer, prompts)]


def encode_examples(tokenizer: PreTrainedTokenizerBase, examples: list[Example]) -> list[list[int]]:
    """Token ids of each example as a finished dialogue, or as ``<|bos|> text <|end|>``."""
    bos, end = special_ids(tokenizer, BOS, END)
    prompts = iter(encode_prompts(tokenizer, [e.prompt for e in examples if e.is_chat]))
    bodies = encode_texts(tokenizer, [e.response for e in examples])
    return [
        [*(next(prompts) if example.is_chat else [bos]), *body, end]
        for example, body in zip(examples, bodies, strict=True)
    ]


def special_ids(tokenizer: PreTrainedTokenizerBase, *tokens: str) -> list[int]:
    """Ids of special tokens.

    Raises:
        SystemExit: one that the tokenizer does not have.
    """
    known = tokenizer.get_vocab()
    if missing := [token for token in tokens if token not in known]:
        raise SystemExit(f"this tokenizer has no {', '.join(missing)}")
    return [known[token] for token in tokens]


def pack(documents: Iterator[list[int]], length: int, batch: int) -> Iterator[Tensor]:
    """Endless ``[batch, length]`` windows of the concatenated documents."""
    buffer: list[int] = []
    need = length * batch
    for document in documents:
        buffer.extend(document)
        while len(buffer) >= need:
            yield torch.tensor(buffer[:need]).view(batch, length)
            buffer = buffer[need:]


def shuffled_forever(
    documents: list[list[int]], weights: list[float], seed: int
) -> Iterator[list[int]]:
    """Documents in random order without end; in a pass each comes ``weight`` times on average."""
    random_ = random.Random(seed)
    while True:
        order = [
            i for i, w in enumerate(weights) for _ in range(int(w) + (random_.random() < w % 1))
        ]
        random_.shuffle(order)
        yield from (documents[i] for i in order)


def log(message: str) -> None:
    """One time-stamped progress line."""
    print(time.strftime("%H:%M:%S"), message, flush=True)
