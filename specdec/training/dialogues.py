"""Dialogues as token ids by a chat template, with a mask of what the assistant wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from specdec.errors import OptionError, first_line
from specdec.request.common_prefix import common_prefix


def encode_dialogue(
    messages: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    ends: Iterable[int] = (),
) -> tuple[list[int], list[bool]]:
    """Token ids of a dialogue by the tokenizer's chat template, and which the assistant wrote.

    The template's own generation marks count where it has any. Elsewhere the text is rendered up to
    each of the assistant's messages and with it: what it adds, up to the first end-of-text token,
    is the assistant's. A message that the template renders otherwise once others follow is not
    counted.

    Args:
        ends: tokens that end a text, besides the tokenizer's.

    Raises:
        OptionError: no chat template, or one that refuses the messages.
    """
    if not tokenizer.chat_template:
        raise OptionError("the tokenizer has no chat template: give rows of plain text ('text')")
    if "{% generation" in str(tokenizer.chat_template).replace("{%-", "{%"):
        encoded = _apply(
            tokenizer,
            messages,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        return list(encoded["input_ids"]), [bool(each) for each in encoded["assistant_masks"]]
    text = _apply(tokenizer, messages, tokenize=False)
    spans = _spans(messages, tokenizer, text)
    encoded = _encode(tokenizer, text)
    ids: list[int] = encoded["input_ids"]
    places: list[tuple[int, int]] = encoded["offset_mapping"]
    return ids, _written(ids, places, spans, _ends(tokenizer) | {*ends})


def _spans(
    messages: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, text: str
) -> list[tuple[int, int]]:
    """The characters of ``text`` that each of the assistant's messages adds."""
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index == 0:
            continue
        before = _apply(tokenizer, messages[:index], tokenize=False, add_generation_prompt=True)
        with_it = _apply(tokenizer, messages[: index + 1], tokenize=False)
        if not with_it.startswith(before):
            # The generation prompt opens something, as <think>, that this message does not have.
            asked = _apply(tokenizer, messages[:index], tokenize=False)
            before = before[: common_prefix(before, with_it)]
            if not before.startswith(asked):
                continue
        if text.startswith(with_it):
            spans.append((len(before), len(with_it)))
    return spans


def _written(
    ids: Sequence[int],
    places: Sequence[tuple[int, int]],
    spans: Sequence[tuple[int, int]],
    ends: set[int],
) -> list[bool]:
    """Which tokens lie in a span, up to the first end-of-text token of each."""
    mask = [False] * len(ids)
    token = 0
    for start, end in spans:
        while token < len(ids) and places[token][0] < start:
            token += 1
        ended = False
        while token < len(ids) and places[token][0] < end:
            mask[token] = not ended
            ended = ended or ids[token] in ends
            token += 1
    return mask


def _ends(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()


def _apply(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Any], **how: Any) -> Any:
    try:
        return tokenizer.apply_chat_template([dict(each) for each in messages], **how)
    except Exception as error:
        roles = ", ".join(str(each["role"]) for each in messages)
        raise OptionError(
            f"the chat template refused a dialogue of {roles}: {first_line(error)}"
        ) from error


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> Any:
    """Token ids and the characters that each stands for."""
    if not tokenizer.is_fast:
        raise OptionError(
            f"a {type(tokenizer).__name__} does not say where its tokens stand in a text: load the "
            "model's fast tokenizer, or give rows of token ids"
        )
    return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
