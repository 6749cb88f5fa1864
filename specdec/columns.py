"""Columns: the new tokens of a ragged batch, one of every row at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from specdec.decoding.step import Step


class Columns:
    """The new tokens of a batch by column: the t-th of every row, the padding token for rows that
    have ended.

    Rows of a step may be any number of tokens ahead of each other; a column is complete when every
    row has its token or has ended.

    Args:
        rows: of the request.
        pad: the padding token's id.
    """

    def __init__(self, rows: int, pad: int) -> None:
        self._pad = pad
        self._waiting: list[deque[int]] = [deque() for _ in range(rows)]
        self._ended = [False] * rows

    def take(self, step: Step) -> Iterator[list[int]]:
        """The columns that a step completes, each a token for every row of the request."""
        for row, request_row in enumerate(step.request_rows):
            self._waiting[request_row].extend(step.new_tokens[row])
            if step.finish_reasons[row] is not None:
                self._ended[request_row] = True
        while self._complete():
            yield [own.popleft() if own else self._pad for own in self._waiting]

    def end(self, row: int) -> None:
        """End a row with the last column: what it has beyond is forgotten."""
        self._waiting[row].clear()
        self._ended[row] = True

    def _complete(self) -> bool:
        whole = all(own or ended for own, ended in zip(self._waiting, self._ended, strict=True))
        return whole and any(self._waiting)


def padded_left(rows: Sequence[Sequence[int]], pad: int) -> list[list[int]]:
    """Prompts of one length, as transformers' ``generate`` takes them."""
    longest = max(map(len, rows))
    return [[pad] * (longest - len(row)) + list(row) for row in rows]
