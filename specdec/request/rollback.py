"""Logits processors whose state can be forked and rolled back, as that of a grammar can."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from specdec.request.common_prefix import common_prefix


@runtime_checkable
class Forks(Protocol):
    """A logits processor that can be doubled. Given for several prompts, each prompt has a fork of
    it, called with the prompt's tokens alone; the original is not called."""

    def fork(self) -> Any:
        """Another processor in the same state, which goes on by itself."""


@runtime_checkable
class RollsBack(Protocol):
    """A logits processor that can undo its calls. It may be asked at any node of a tree, in any
    order, and ends in the state in which plain decoding leaves it.

    So is one that is called with one text: of a single prompt, a fork (:class:`Forks`), or one of
    ``logits_processor_by_prompt``. The copies of one that has no ``fork``, which are called with a
    row for every prompt, are asked along the accepted path alone and are not rolled back."""

    def rollback(self, calls: int) -> None:
        """Undo the last ``calls`` calls, 1 at least."""


class Settles(ABC):
    """A processor that is told how a text ends."""

    @abstractmethod
    def settle(self, length: int) -> None:
        """The text has ended with ``length`` tokens: forget what was asked beyond it."""


class RolledBack(Settles):
    """A processor that rolls back, asked at the prefixes of one text in any order.

    It sees each prefix on the way to the one that is asked for once, as plain decoding would show
    it, however often and in whatever order they are asked for: calls about another continuation
    are undone first, and prefixes that were passed over are shown to it, their scores thrown away.

    Args:
        processor: what is called.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.__name__ = getattr(processor, "__name__", type(processor).__name__)
        self._start = 0
        # Tokens from the first call's prefix on; a call for every length up to the last one's.
        self._tokens: list[int] = []
        self._calls = 0

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """Processed scores ``[1, V]`` of the token after the prefix ``tokens [1, n]``."""
        length = tokens.shape[1]
        if not self._calls:
            self._start = length
        own = tokens[0, self._start :].tolist()
        self._undo(min(common_prefix(own, self._tokens), length - 1 - self._start) + 1)
        if not self._calls:  # before the first call, or none of the calls stands
            self._start, own = length, []
        for skipped in range(self._start + self._calls, length):
            self._processor(tokens[:, :skipped], torch.zeros_like(scores))
            self._calls += 1
        processed: Tensor = self._processor(tokens, scores)
        self._tokens, self._calls = own, length - self._start + 1
        return processed

    def settle(self, length: int) -> None:
        self._undo(max(0, length - self._start))

    def _undo(self, kept: int) -> None:
        """Undo all calls but the first ``kept``."""
        if self._calls > max(kept, 0):
            self._processor.rollback(self._calls - max(kept, 0))
            self._calls = max(kept, 0)
            self._tokens = self._tokens[: max(0, self._calls - 1)]


def rolled_back(processor: Any) -> Any:
    """The processor as it is called on one text: rolled back where it can be."""
    return RolledBack(processor) if isinstance(processor, RollsBack) else processor
