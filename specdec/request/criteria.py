"""The caller's stopping criteria, called with the text of one row as it grows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.generation import stopping_criteria as hf

from specdec.errors import OptionError

# Called as ``criterion(input_ids, scores)``.
Criterion = Callable[..., Any]
# What they say is a function of what they are called with, and of the clock.
_REPEATABLE = (
    hf.MaxLengthCriteria,
    hf.MaxTimeCriteria,
    hf.StopStringCriteria,
    hf.EosTokenCriteria,
)


def criteria_in(given: Any) -> tuple[Criterion, ...]:
    """What a caller gave as a criterion, or a list of them, each checked; lists in lists too.

    Raises:
        OptionError: something that cannot be called as a stopping criterion.
    """
    return tuple(_flat(given))


def _flat(given: Any) -> Iterator[Criterion]:
    if given is None:
        return
    if isinstance(given, (list, tuple)):
        for each in given:
            yield from _flat(each)
        return
    if not callable(given) or inspect.isclass(given):
        raise OptionError(
            f"stopping_criteria must be transformers' StoppingCriteria, one or a list of them, not "
            f"{given!r}"
        )
    yield given


class RowCriteria:
    """Stopping criteria on one row, told its new tokens one by one.

    They see the row alone, ``input_ids [1, n]``, and no scores.

    Args:
        criteria: called in this order until one of them ends the row.
        prompt: token ids.
        limit: the most tokens that the row may have.
        device: where ``input_ids`` are.

    Attributes:
        called: whether a criterion has been called.
    """

    called: bool = False

    def __init__(
        self, criteria: Sequence[Criterion], prompt: Sequence[int], limit: int, device: torch.device
    ) -> None:
        self._criteria, self._length = criteria, len(prompt)
        self._tokens = torch.zeros(1, max(limit, len(prompt)), dtype=torch.int64, device=device)
        self._tokens[0, : self._length] = torch.tensor(prompt, device=device)

    def push(self, token: int) -> Criterion | None:
        """Add a token; the criterion that ends the row with it, None if it goes on.

        Raises:
            OptionError: a criterion that says nothing of the row.
        """
        self._tokens[0, self._length] = token
        self._length += 1
        self.called = True
        text = self._tokens[:, : self._length]
        return next((each for each in self._criteria if _says_so(each, text)), None)


def _says_so(criterion: Criterion, text: Tensor) -> bool:
    said = criterion(text, None)
    if isinstance(said, (bool, np.bool_)) or (isinstance(said, Tensor) and said.numel() == 1):
        return bool(said)
    shown = f"a tensor {list(said.shape)}" if isinstance(said, Tensor) else repr(said)
    raise OptionError(
        f"the stopping criterion {type(criterion).__name__} was called with one row and returned "
        f"{shown}: it must return True or False, or a tensor [1] of bool"
    )


def is_repeatable(criterion: Criterion) -> bool:
    """Whether a criterion is known to say the same again, however often it was called before."""
    return type(criterion) in _REPEATABLE


def is_of_time(criterion: Criterion) -> bool:
    """Whether a criterion bounds the time rather than the text."""
    return isinstance(criterion, hf.MaxTimeCriteria)
