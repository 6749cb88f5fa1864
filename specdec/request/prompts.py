"""Prompts, in every form that users give them, as rows of token ids."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from specdec.errors import OptionError, PromptError, warn
from specdec.request.chat_template import Template, are_messages, check_text

_ALLOWED = (
    "a string, chat messages, token ids, a list of any of these, a tensor or array [T] or [B, T], "
    "or what a tokenizer returns"
)
_BYTES = (bytes, bytearray, memoryview)
_PLAIN = Template()
# What tokenizers return beside token ids that a model's scores do not depend on.
_HARMLESS = (
    "special_tokens_mask", "offset_mapping", "length", "num_truncated_tokens",
    "overflowing_tokens", "overflow_to_sample_mapping", "assistant_masks", "labels",
)  # fmt: skip
# What changes nothing where it is all zeros.
_SEGMENTS = ("token_type_ids", "mm_token_type_ids")


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
        if isinstance(prompt, (Tensor, np.ndarray)):
            return Prompts(_ids(prompt), batched=prompt.ndim == 2)
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
            if isinstance(item, _BYTES) or not isinstance(
                item, (str, Sequence, Tensor, np.ndarray)
            ):
                what = "a token id among prompts" if _is_id(item) else _kind(item)
                raise PromptError(f"item {place} of the prompt cannot be {what}: give {_ALLOWED}")
        return Prompts([self._single(place, item) for place, item in enumerate(prompt)], True)

    def _single(self, place: int, item: Any) -> list[int]:
        if not isinstance(item, (str, Tensor, np.ndarray)) and not len(item):
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


def _ids(given: Tensor | np.ndarray[Any, Any]) -> list[list[int]]:
    if isinstance(given, Tensor):
        whole = not given.is_floating_point() and not given.is_complex()
        whole = whole and given.dtype != torch.bool
    else:
        whole = given.dtype.kind in "iu"
    if given.ndim not in (1, 2) or not whole:
        kind = "tensor" if isinstance(given, Tensor) else "array"
        raise PromptError(
            f"token ids must be an integer {kind} [T] or [B, T], not {given.dtype} "
            f"{list(given.shape)}"
        )
    rows: list[list[int]] = given.tolist() if given.ndim == 2 else [given.tolist()]
    return rows


def _lists(value: Any) -> Any:
    """Tensors and arrays as nested lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def _unpadded(encoded: Mapping[str, Any]) -> Prompts:
    """A tokenizer's output without its padding.

    Raises:
        PromptError: ids or a mask of another form, or something that text alone does not have.
    """
    _check_text_alone(encoded)
    ids, batched = _numbers("input_ids", encoded["input_ids"])
    rows = [[operator.index(token) for token in row] for row in ids]
    if encoded.get("attention_mask") is None:
        return Prompts(rows, batched)
    kept, of_several = _numbers("attention_mask", encoded["attention_mask"])
    if of_several != batched or [len(row) for row in kept] != [len(row) for row in rows]:
        raise PromptError("attention_mask and input_ids must have the same shape")
    unpadded = [
        [token for token, real in zip(row, own, strict=True) if real]
        for row, own in zip(rows, kept, strict=True)
    ]
    return Prompts(unpadded, batched)


def _numbers(name: str, value: Any) -> tuple[list[Any], bool]:
    """What a tokenizer returns under a name, as rows, and whether it was several."""
    outer = _lists(value)
    if isinstance(outer, (list, tuple)):
        inner = [_lists(item) for item in outer]
        several = bool(inner) and all(isinstance(row, (list, tuple)) for row in inner)
        rows = inner if several else [inner]
        fits = _is_bit if name == "attention_mask" else _is_id
        if all(fits(number) for row in rows for number in row):
            return rows, several
    allowed = "zeros and ones" if name == "attention_mask" else "ints"
    raise PromptError(f"{name} must be {allowed} [T] or [B, T], not {outer!r:.80}")


def _is_bit(item: Any) -> bool:
    return isinstance(item, Real) and item in (0, 1)


def _any(value: Any) -> bool:
    """Whether anything in nested lists is not 0."""
    value = _lists(value)
    return any(map(_any, value)) if isinstance(value, (list, tuple)) else value != 0


def _check_text_alone(encoded: Mapping[str, Any]) -> None:
    """Refuse what a tokenizer or processor returns that would be left out."""
    for name, value in encoded.items():
        if name in ("input_ids", "attention_mask", *_HARMLESS) or value is None:
            continue
        if name in _SEGMENTS:
            if not _any(value):
                continue
            raise PromptError(
                f"the prompt has {name} other than 0: specdec reads text alone, as one segment. "
                f"Leave out {name}"
            )
        raise PromptError(
            f"the prompt has {name}, which would have no effect: specdec reads text alone, as "
            f"input_ids and attention_mask. Leave out {name}, if the model's answer is not to "
            "depend on it"
        )


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
