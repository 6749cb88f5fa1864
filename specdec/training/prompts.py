"""The prompts of rows of data, for the target to answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from specdec.errors import OptionError, PromptError
from specdec.request.chat_template import Template
from specdec.training.rows import Row

_OF_A_TEXT = 64  # tokens of a plain text that are its prompt, at most half of it


@dataclass(frozen=True)
class Prompt:
    """What is answered.

    Attributes:
        ids: token ids.
        source, licence: of the text.
    """

    ids: tuple[int, ...]
    source: str
    licence: str


def prompts_of(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase | None,
    left_out: Counter[str] | None = None,
    length: int | None = None,
) -> Iterator[Prompt]:
    """The prompt of each row, once: of a dialogue all before the assistant's last message, of a
    plain text its first tokens. A row whose prompt cannot be encoded is left out, and so is a
    prompt as long as a document may be, whose answer would be cut off.

    Args:
        left_out: counts them.
        length: tokens of a document at most; None for any number.

    Raises:
        OptionError: no prompt at all, with what became of the first row that could not be encoded:
            text without a tokenizer or a chat template; or none that leaves room for an answer.
    """
    seen: set[tuple[int, ...]] = set()
    refused, given = "", 0
    cut = f"no room for an answer in {length} tokens"
    for row in rows:
        try:
            ids = tuple(_prompt_ids(row, tokenizer))
        except OptionError as error:
            if left_out is not None:
                left_out["refused"] += 1
            refused = refused or f"{row.place or 'a row'}: {error}"
            continue
        if not ids or ids in seen:
            continue
        seen.add(ids)
        if length is None or len(ids) < length:
            given += 1
            yield Prompt(ids, row.source, row.licence)
        elif left_out is not None:
            left_out[cut] += 1
    if refused and not seen:
        raise OptionError(refused)
    if seen and not given:
        raise OptionError(
            f"all {len(seen)} prompts have {cut}: give others, or a larger length (--set length=), "
            "up to the model's context"
        )


def _prompt_ids(row: Row, tokenizer: PreTrainedTokenizerBase | None) -> Sequence[int]:
    if row.prompt_ids:
        return row.prompt_ids
    if tokenizer is None:
        raise OptionError("the target model has no tokenizer: give rows of token ids")
    if row.messages:
        said = [i for i, each in enumerate(row.messages) if each["role"] == "assistant"]
        asked = row.messages[: said[-1]] if said else row.messages
        if not asked:
            return ()
        try:
            return Template().encode(list(asked), tokenizer)
        except PromptError as error:
            raise OptionError(f"a dialogue cannot be answered: {error}") from error
    ids: list[int] = tokenizer(row.text, verbose=False)["input_ids"]
    return ids[: min(_OF_A_TEXT, len(ids) // 2)]
