"""Documents: rows of data as token ids, with a mask of the tokens that the assistant wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from specdec.drafting.token_frequencies import ranked
from specdec.errors import OptionError
from specdec.models.fingerprints import fingerprint
from specdec.training.dialogues import encode_dialogue
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
        texts: of documents that are pieces of a plain text, by number, a fingerprint of it.
    """

    tokens: Tensor
    answer: Tensor
    lengths: list[int]
    sources: Mapping[tuple[str, str], int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[int, str] = field(default_factory=dict)

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

    def frequent(self, size: int, ends: Iterable[int] = ()) -> list[int]:
        """The ``size`` most frequent tokens of the answers, ascending, the ``ends`` of a text
        always among them; fewer if there are fewer."""
        return sorted(ranked(Counter(self.tokens[self.answer].tolist()), ends, size))

    def only(self, indices: Sequence[int]) -> Documents:
        """Some of the documents, without what is told of all."""
        places = [slice(self.starts[index], self.starts[index + 1]) for index in indices]
        tokens, answer = (
            torch.cat([values[place] for place in places]) for values in (self.tokens, self.answer)
        )
        return Documents(tokens, answer, [self.lengths[index] for index in indices])


def make_documents(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    length: int,
    vocab_size: int,
    ends: Iterable[int] = (),
) -> Documents:
    """Encode rows. What is longer than ``length`` is cut; a plain text goes on as another document.

    Rows without a token of an answer are left out, and so is a document that was there before.

    A row that cannot be encoded is left out as well.

    Args:
        length: tokens of a document at most.
        vocab_size: of the target.
        ends: tokens that end a text, besides the tokenizer's.

    Raises:
        OptionError: token ids outside of the vocabulary; or nothing left to learn from, with what
            became of the first row that could not be encoded: text without a tokenizer, a dialogue
            without a chat template or one that refuses it.
    """
    tokens: list[Tensor] = []
    answers: list[Tensor] = []
    sources: Counter[tuple[str, str]] = Counter()
    left_out: Counter[str] = Counter()
    texts: dict[int, str] = {}
    seen: set[str] = set()
    refused = ""
    for row in rows:
        try:
            pieces = list(_pieces(row, tokenizer, length, ends))
        except OptionError as error:
            left_out["refused"] += 1
            refused = refused or f"{row.place or 'a row'}: {error}"
            continue
        if not pieces:
            left_out["nothing in it"] += 1
        for ids, mask in pieces:
            own, written = torch.tensor(ids, dtype=torch.int32), torch.tensor(mask)
            if len(ids) < 3 or not written[1:].any():
                left_out["no answer within the length"] += 1
                continue
            if int(own.min()) < 0 or int(own.max()) >= vocab_size:
                raise OptionError(
                    f"{row.place or 'a row'} has token id {_outside(own, vocab_size)}: the "
                    f"target model has {vocab_size} tokens. Were its ids made for another model?"
                )
            if (key := fingerprint(own, written)) in seen:
                left_out["the same as another"] += 1
                continue
            seen.add(key)
            if row.text:
                texts[len(tokens)] = fingerprint(row.text)
            tokens.append(own)
            answers.append(written)
            sources[row.source, row.licence] += 1
    if refused and not tokens:
        raise OptionError(refused)
    if not tokens:
        told = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise OptionError(f"the data have nothing to learn from ({told or 'no rows'})")
    lengths = [len(each) for each in tokens]
    return Documents(
        torch.cat(tokens), torch.cat(answers), lengths, dict(sources), dict(left_out), texts
    )


def _outside(ids: Tensor, vocab_size: int) -> int:
    """The first id that is no token."""
    return int(ids[(ids < 0) | (ids >= vocab_size)][0])


def _pieces(
    row: Row, tokenizer: PreTrainedTokenizerBase | None, length: int, ends: Iterable[int]
) -> Iterator[tuple[list[int], list[bool]]]:
    """A row's documents, at most ``length`` tokens each."""
    if row.prompt_ids or row.answer_ids:
        ids = [*row.prompt_ids, *row.answer_ids]
        mask = [False] * len(row.prompt_ids) + [True] * len(row.answer_ids)
        yield ids[:length], mask[:length]
        return
    if tokenizer is None:
        raise OptionError("the target model has no tokenizer: give rows of token ids")
    if row.messages:
        ids, mask = encode_dialogue(row.messages, tokenizer, ends)
        yield ids[:length], mask[:length]
        return
    text: list[int] = tokenizer(row.text, verbose=False)["input_ids"]
    for start in range(0, len(text), length):
        part = text[start : start + length]
        yield part, [True] * len(part)
