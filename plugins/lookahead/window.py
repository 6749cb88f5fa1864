"""The Jacobi window of one text: guesses at its next tokens, made by the target level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Guesses(NamedTuple):
    """The tokens of a window, level by level, as nodes below the root of a draft tree.

    Attributes:
        tokens: the oldest level first; its first column is the root and left out.
        parents: for each the index of the token that it follows among these tokens, -1: the root.
        depth: the most tokens from the root to one of them.
        newest: how many of the last ones the next level is made from.
    """

    tokens: list[int]
    parents: list[int]
    depth: int
    newest: int


class Window:
    """A window of ``columns`` columns and at most ``ngram - 1`` levels.

    Level k is the target's own next token after level k - 1, column by column, made in the step
    before. Column c of it stands for the token k + c places after the root. The oldest level is
    read as one text, of which column 0 is the root itself; a token of a later level follows the
    token of its column in the level before. Once all levels are there, each step turns every column
    into an n-gram: its tokens from the oldest level on, and the one just made.

    In every step the root moves on: the oldest level goes, or, while levels are missing, the first
    column does. A step that commits several tokens moves the window by one place all the same: its
    columns are then guesses at earlier places, which makes n-grams as well.

    Source: Fu et al. (arXiv 2402.02057), sections 3.1 and 3.2, figure 2.

    Args:
        start: tokens to begin with, of which the oldest level is filled; at least one. They are
            repeated where there are too few of them.
        columns: W.
        ngram: N, at least 3: tokens of an n-gram.
    """

    def __init__(self, start: Sequence[int], columns: int, ngram: int) -> None:
        # One column more for each level that is missing: each step that adds one drops a column.
        width = columns + ngram - 3
        self._levels = [[start[place % len(start)] for place in range(width)]]
        self._most = ngram - 1

    @staticmethod
    def most(columns: int, ngram: int) -> tuple[int, int]:
        """The most guesses that such a window ever has, and the most newest ones among them."""
        widths = {levels: columns + ngram - 1 - levels for levels in range(1, ngram)}
        return max(levels * width for levels, width in widths.items()) - 1, columns + ngram - 3

    def guesses(self) -> Guesses:
        """What the target is to read beside the draft tree of the step that comes."""
        first, *others = self._levels
        parents = list(range(-1, len(first) - 1))
        above = [-1, *range(len(first))]  # of level 1: the root, then the oldest level
        for level in others:
            end = len(parents)
            parents += above
            above = list(range(end, end + len(level)))
        tokens = [token for level in self._levels for token in level]
        depth = len(first) + len(others)
        return Guesses(tokens, parents, depth, len(self._levels[-1]))

    def take(self, root: int, made: Sequence[int]) -> list[tuple[int, ...]]:
        """Move on by a step.

        Args:
            root: the root of the step that has been verified.
            made: what the target made of the newest level: the token after each of its columns.

        Returns:
            The n-grams that are complete now; none while levels are missing.
        """
        levels, new = self._levels, list(made)
        if len(levels) < self._most:
            first = len(levels) > 1  # of the oldest level column 0 is the root, made of no guess
            self._levels = [*(level[1:] for level in levels), new[first:]]
            return []
        columns = [[root, *levels[0]], *levels[1:], new]
        self._levels = [levels[1][1:], *levels[2:], new]
        return list(zip(*columns, strict=True))
