"""Whatever users call a prompt, as rows of token ids."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from specdec.chat import Template, are_messages, check_text
from specdec.errors import OptionError, PromptError, warn

_ALLOWED = (
    "a string, chat messages, token ids, a list of any of these, a tensor [T] or [B, T], or what a "
    "tokenizer returns"
)
_BYTES = (bytes, bytearray, memoryview)
_PLAIN = Template()


@dataclass(frozen=True)
class Prompts:
    """Token ids by row.

    Attributes:
        rows: at least one, none of them empty.
        batched: whether the caller gave several, and so gets a list back.
    """

    rows: list[list[int]]
    batched: bool


def encode(
    prompt: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    vocab_size: int,
    context: int,
    template: Template = _PLAIN,
) -> Prompts:
    """Token ids of a prompt or of a batch of them.

    Raises:
        PromptError: nothing to decode, an empty prompt, one that fills the context, token ids
            outside the vocabulary, text or messages without a tokenizer or template for them.
        OptionError: arguments of a chat template for prompts that are no chat messages.
    """
    reader = _Reader(tokenizer, template)
    prompts = reader.rows(prompt)
    if template.given and not reader.chats and prompts.rows:
        raise OptionError(
            f"{', '.join(template.given)}: for chat messages alone, and the prompt has none"
        )
    if not prompts.rows:
        raise PromptError("there is no prompt in an empty list: give at least one")
    for index, row in enumerate(prompts.rows):
        which = f"prompt {index}" if prompts.batched else "the prompt"
        if not row:
            raise PromptError(f"{which} is empty: give at least one token to go on from")
        wrong = [t for t in row if not 0 <= t < vocab_size]
        if wrong:
            raise PromptError(
                f"{which} has token id {wrong[0]}: the vocabulary ends at {vocab_size - 1}"
            )
        if len(row) >= context:
            raise PromptError(
                f"{which} has {len(row)} tokens, but the model's context holds {context} and needs "
                f"one for the answer: give at most {context - 1}"
            )
    return prompts


class _Reader:
    """Turns prompts into rows.

    Attributes:
        chats: how many were chat messages.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, template: Template) -> None:
        self._tokenizer, self._template = tokenizer, template
        self.chats = 0

    def rows(self, prompt: Any) -> Prompts:
        if isinstance(prompt, Mapping) and "input_ids" in prompt:
            return _unpadded(prompt)
        if isinstance(prompt, Mapping) and "role" in prompt:
            raise PromptError("one chat message is no prompt: give a list of messages")
        if isinstance(prompt, Tensor):
            return Prompts(_ids(prompt), batched=prompt.dim() == 2)
        if isinstance(prompt, str):
            return Prompts([_text(prompt, self._tokenizer)], batched=False)
        if not isinstance(prompt, Sequence) or isinstance(prompt, _BYTES):
            raise PromptError(f"a prompt cannot be {_kind(prompt)}: give {_ALLOWED}")
        if not prompt:
            return Prompts([], batched=True)
        if are_messages(prompt):
            self.chats += 1
            return Prompts([self._template.encode(prompt, self._tokenizer)], batched=False)
        if all(_is_id(item) for item in prompt):
            return Prompts([[operator.index(item) for item in prompt]], batched=False)
        for place, item in enumerate(prompt):
            if isinstance(item, _BYTES) or not isinstance(item, (str, Sequence, Tensor)):
                what = "a token id among prompts" if _is_id(item) else _kind(item)
                raise PromptError(f"item {place} of the prompt cannot be {what}: give {_ALLOWED}")
        return Prompts([self._single(place, item) for place, item in enumerate(prompt)], True)

    def _single(self, place: int, item: Any) -> list[int]:
        if not isinstance(item, (str, Tensor)) and not len(item):
            return []
        try:
            inner = self.rows(item)
        except PromptError as error:
            raise PromptError(f"in prompt {place}: {error}") from error
        if inner.batched:
            raise PromptError(f"prompts are nested too deeply: give {_ALLOWED}")
        return inner.rows[0]


def _is_id(item: Any) -> bool:
    return isinstance(item, Integral) and not isinstance(item, bool)


def _kind(value: Any) -> str:
    """What a value is, for an error message."""
    if isinstance(value, _BYTES):
        return f"{type(value).__name__} (decode it to a string first)"
    if isinstance(value, Mapping):
        return f"a mapping with {list(value)}"
    return f"{type(value).__name__}"


def _ids(tensor: Tensor) -> list[list[int]]:
    if tensor.dim() not in (1, 2) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise PromptError(
            f"token ids must be an integer tensor [T] or [B, T], not {tensor.dtype} "
            f"{list(tensor.shape)}"
        )
    rows: list[list[int]] = tensor.tolist() if tensor.dim() == 2 else [tensor.tolist()]
    return rows


def _lists(value: Any) -> Any:
    """Tensors and arrays as nested lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _unpadded(encoded: Mapping[str, Any]) -> Prompts:
    """A tokenizer's output without its padding."""
    ids: Any = _lists(encoded["input_ids"])
    mask: Any = _lists(encoded.get("attention_mask"))
    batched = bool(ids) and isinstance(ids[0], (list, tuple))
    rows, kept = (ids, mask) if batched else ([ids], None if mask is None else [mask])
    for row in rows:
        if not all(type(token) is int for token in row):
            raise PromptError(f"input_ids must be ints, not {row[:8]!r}")
    if kept is None:
        return Prompts([list(row) for row in rows], batched)
    if [len(row) for row in kept] != [len(row) for row in rows]:
        raise PromptError("attention_mask and input_ids must have the same shape")
    unpadded = [
        [token for token, real in zip(row, own, strict=True) if real]
        for row, own in zip(rows, kept, strict=True)
    ]
    return Prompts(unpadded, batched)


def _text(text: str, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if tokenizer is None:
        raise PromptError("text needs a tokenizer: give Engine(..., tokenizer=...) or token ids")
    check_text("the text", text)
    ids: list[int] = tokenizer(text)["input_ids"]
    if (again := _given_twice(text, ids, tokenizer)) is not None:
        warn(
            f"the text begins with {again!r}, which the tokenizer adds once more: leave it out, or "
            "give token ids"
        )
    return ids


def _given_twice(text: str, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What the tokenizer puts before every text, if the text begins with it already."""
    special = set(tokenizer.all_special_ids)
    for size in range(1, len(ids) // 2 + 1):
        if ids[size - 1] not in special:
            return None
        if ids[:size] == ids[size : 2 * size]:
            bare = tokenizer(text, add_special_tokens=False)["input_ids"]
            return tokenizer.decode(ids[:size]) if bare[: 2 * size] != ids[: 2 * size] else None
    return None
