"""Whatever users call a prompt, as rows of token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from specdec.errors import PromptError

_ALLOWED = (
    "a string, chat messages, token ids, a list of any of these, a tensor [T] or [B, T], or what a "
    "tokenizer returns"
)


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
    prompt: Any, tokenizer: PreTrainedTokenizerBase | None, *, vocab_size: int, context: int
) -> Prompts:
    """Token ids of a prompt or of a batch of them.

    Raises:
        PromptError: nothing to decode, an empty prompt, one that fills the context, token ids
            outside the vocabulary, text or messages without a tokenizer or template for them.
    """
    prompts = _rows(prompt, tokenizer)
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


def _rows(prompt: Any, tokenizer: PreTrainedTokenizerBase | None) -> Prompts:
    if isinstance(prompt, Mapping) and "input_ids" in prompt:
        return _unpadded(prompt)
    if isinstance(prompt, Tensor):
        return Prompts(_ids(prompt), batched=prompt.dim() == 2)
    if isinstance(prompt, str):
        return Prompts([_text(prompt, tokenizer)], batched=False)
    if isinstance(prompt, Sequence):
        if not prompt:
            return Prompts([], batched=True)
        if all(_is_message(item) for item in prompt):
            return Prompts([_chat(prompt, tokenizer)], batched=False)
        if all(isinstance(item, int) and not isinstance(item, bool) for item in prompt):
            return Prompts([list(prompt)], batched=False)
        if all(isinstance(item, (str, Sequence, Tensor)) for item in prompt):
            return Prompts([_single(item, tokenizer) for item in prompt], batched=True)
    raise PromptError(f"a prompt cannot be {type(prompt).__name__}: give {_ALLOWED}")


def _single(item: Any, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if not isinstance(item, (str, Tensor)) and not len(item):
        return []
    inner = _rows(item, tokenizer)
    if inner.batched:
        raise PromptError(f"prompts are nested too deeply: give {_ALLOWED}")
    return inner.rows[0]


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and "role" in item and "content" in item


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
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


def _chat(messages: Sequence[Any], tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise PromptError(
            "chat messages need a tokenizer with a chat template: give one, or a text prompt"
        )
    try:
        encoded = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=True, return_dict=True
        )
    except Exception as error:
        raise PromptError(f"the chat template refused the messages: {error}") from error
    ids: list[int] = encoded["input_ids"]
    return ids
