"""Counting of prompts that have ended, each once, also where a batch of them begins anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class EndedOnce:
    """Tells how many prompts have ended; those of a batch that begins anew are told once.

    Args:
        tell: called with the number of prompts that ended and were not told of before.
    """

    def __init__(self, tell: Callable[[int], Any]) -> None:
        self._tell, self._ended, self._again = tell, 0, 0

    def advance(self, ended: int) -> None:
        """``ended`` more prompts of the batch have ended."""
        known = min(ended, self._again)
        self._again -= known
        self._ended += ended
        self._tell(ended - known)

    def begin_anew(self) -> None:
        """The batch failed: those of it that have ended will end again."""
        self._again += self._ended
        self._ended = 0

    def next_batch(self) -> None:
        """The batch is done."""
        self._ended = 0
