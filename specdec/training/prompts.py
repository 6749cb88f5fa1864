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
) -> Iterator[Prompt]:
    """The prompt of each row, once: of a dialogue all before the assistant's last message, of a
    plain text its first tokens. A row whose prompt cannot be encoded is left out.

    Args:
        left_out: counts such rows.

    Raises:
        OptionError: no prompt at all, with what became of the first row that could not be encoded:
            text without a tokenizer or a chat template.
    """
    seen: set[tuple[int, ...]] = set()
    refused = ""
    for row in rows:
        try:
            ids = tuple(_prompt_ids(row, tokenizer))
        except OptionError as error:
            if left_out is not None:
                left_out["refused"] += 1
            refused = refused or f"{row.place or 'a row'}: {error}"
            continue
        if ids and ids not in seen:
            seen.add(ids)
            yield Prompt(ids, row.source, row.licence)
    if refused and not seen:
        raise OptionError(refused)


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
