"""One text, indexed by its last few tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Guess:
    """How a text may go on.

    Attributes:
        tokens: what followed the same tokens before; empty if nothing was found.
        matched: how many of the text's last tokens were the same.
    """

    tokens: tuple[int, ...] = ()
    matched: int = 0


class TextIndex:
    """A text that grows, and where each of its short runs of tokens came last.

    Args:
        longest: the most tokens that a match is looked for with.
    """

    def __init__(self, longest: int) -> None:
        self.text: list[int] = []
        self._longest = longest
        # For each run of tokens that something followed, where the latest one ends.
        self._ends: dict[tuple[int, ...], int] = {}

    def extend(self, tokens: Iterable[int]) -> None:
        """Append ``tokens``."""
        for token in tokens:
            for run in self._runs():
                self._ends[run] = len(self.text)
            self.text.append(token)

    def guess(self, most: int) -> Guess:
        """At most ``most`` tokens that followed the longest match, the latest of several.

        Where they reach the end of the text they go on from the match's end again, as a text does
        that repeats itself.

        Source: Saxena 2023, prompt lookup decoding.
        """
        for run in reversed(self._runs()):
            if end := self._ends.get(run):
                since = len(self.text) - end
                tokens = (self.text[end + place % since] for place in range(most))
                return Guess(tuple(tokens), len(run))
        return Guess()

    def _runs(self) -> list[tuple[int, ...]]:
        """The last 1, 2, ... tokens."""
        last = tuple(self.text[-self._longest :])
        return [last[start:] for start in reversed(range(len(last)))]
