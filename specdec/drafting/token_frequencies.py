"""Token frequencies: the tokens that texts have most of, from which draft vocabularies are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from specdec.errors import OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def most_frequent(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, size: int) -> list[int]:
    """The ``size`` most frequent tokens of some texts, the end of a text among them.

    Fewer than ``size`` where the texts have no more.

    Raises:
        OptionError: texts without a token.
    """
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not counts:
        raise OptionError("there is no token to count in these texts")
    ends = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return ranked(counts, ends, size)


def ranked(counts: Mapping[int, int], ends: Iterable[int], size: int) -> list[int]:
    """``size`` tokens: first the ``ends``, which end a text, however rare, then by frequency.

    Fewer than ``size`` where there are no more.
    """
    first = dict.fromkeys(ends)
    rest = sorted(counts.keys() - first.keys(), key=lambda token: (-counts[token], token))
    return [*first, *rest][:size]
