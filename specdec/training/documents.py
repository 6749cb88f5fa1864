"""Documents: rows of data as token ids, with a mask of the tokens that the assistant wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from specdec.errors import OptionError, first_line
from specdec.training.files import fingerprint
from specdec.training.rows import Row


@dataclass(frozen=True)
class Documents:
    """Many documents side by side.

    Attributes:
        tokens: ``[N]`` int32, of all documents one after the other.
        answer: ``[N]`` bool, whether the assistant wrote the token (or it is of a plain text): what
            a drafter learns to predict.
        lengths: tokens of each document.
        sources: how many documents came from each source and licence.
        left_out: how many rows were left out, by reason.
    """

    tokens: Tensor
    answer: Tensor
    lengths: list[int]
    sources: Mapping[tuple[str, str], int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def starts(self) -> list[int]:
        """Where each document begins; one more entry for the end of the last."""
        return [0, *torch.tensor(self.lengths).cumsum(0).tolist()]

    @cached_property
    def fingerprint(self) -> str:
        """Of tokens and masks."""
        return fingerprint(self.tokens, self.answer, self.lengths)

    def document(self, index: int) -> tuple[list[int], list[bool]]:
        """Token ids and mask of one document."""
        part = slice(self.starts[index], self.starts[index + 1])
        return self.tokens[part].tolist(), self.answer[part].tolist()

    def prompts(self, indices: Iterable[int]) -> list[list[int]]:
        """The tokens before the first answer of some documents; of a plain text its first
        tokens, up to 16."""
        found = []
        for index in indices:
            part = slice(self.starts[index], self.starts[index + 1])
            first = int(self.answer[part].int().argmax())
            length = first or min(16, self.lengths[index])
            found.append(self.tokens[part][:length].tolist())
        return found

    def frequent(self, size: int) -> list[int]:
        """The ``size`` most frequent tokens of the answers, ascending; fewer if there are fewer."""
        counts = Counter(self.tokens[self.answer].tolist())
        ranked = sorted(counts, key=lambda token: (-counts[token], token))
        return sorted(ranked[:size])


def make_documents(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    length: int,
    vocab_size: int,
) -> Documents:
    """Encode rows. What is longer than ``length`` is cut; a plain text goes on as another document.

    Rows without a token of an answer are left out, and so is a document that was there before.

    Raises:
        OptionError: text without a tokenizer, dialogues without a chat template or one that refuses
            them, token ids outside of the vocabulary, or nothing left to learn from.
    """
    tokens: list[Tensor] = []
    answers: list[Tensor] = []
    sources: Counter[tuple[str, str]] = Counter()
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    for row in rows:
        for ids, mask in _pieces(row, tokenizer, length):
            own, written = torch.tensor(ids, dtype=torch.int32), torch.tensor(mask)
            if len(ids) < 3 or not written[1:].any():
                left_out["no answer within the length"] += 1
                continue
            if int(own.min()) < 0 or int(own.max()) >= vocab_size:
                raise OptionError(
                    f"a row from {row.source or 'the data'} has token id {int(own.max())}: the "
                    f"target model has {vocab_size} tokens. Were its ids made for another model?"
                )
            if (key := fingerprint(own, written)) in seen:
                left_out["the same as another"] += 1
                continue
            seen.add(key)
            tokens.append(own)
            answers.append(written)
            sources[row.source, row.licence] += 1
    if not tokens:
        told = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise OptionError(f"the data have nothing to learn from ({told or 'no rows'})")
    lengths = [len(each) for each in tokens]
    return Documents(torch.cat(tokens), torch.cat(answers), lengths, dict(sources), dict(left_out))


def _pieces(
    row: Row, tokenizer: PreTrainedTokenizerBase | None, length: int
) -> Iterator[tuple[list[int], list[bool]]]:
    """A row's documents, at most ``length`` tokens each."""
    if row.answer_ids:
        ids = [*row.prompt_ids, *row.answer_ids]
        mask = [False] * len(row.prompt_ids) + [True] * len(row.answer_ids)
        yield ids[:length], mask[:length]
        return
    if tokenizer is None:
        raise OptionError("the target model has no tokenizer: give rows of token ids")
    if row.messages:
        ids, mask = encode_dialogue(row.messages, tokenizer)
        yield ids[:length], mask[:length]
        return
    text: list[int] = tokenizer(row.text, verbose=False)["input_ids"]
    for start in range(0, len(text), length):
        part = text[start : start + length]
        yield part, [True] * len(part)


def encode_dialogue(
    messages: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """Token ids of a dialogue by the tokenizer's chat template, and which the assistant wrote.

    The template's own generation marks count where it has any. Elsewhere the text is rendered up to
    each of the assistant's messages and with it: what it adds, up to the first end-of-text token,
    is the assistant's. A message that the template renders otherwise once others follow is not
    counted.

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
    return ids, _written(ids, places, spans, _ends(tokenizer))


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
        if text.startswith(with_it) and with_it.startswith(before):
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
