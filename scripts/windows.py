"""Windows of whole documents for the draft head: who sees whom, and which positions count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Marks:
    """Ids of the tokens that structure a document."""

    pad: int
    bos: int
    end: int
    user: int
    assistant: int


def fill(documents: list[list[int]], length: int, pad: int) -> list[list[int]]:
    """Rows of ``length`` tokens made of whole documents, the longest placed first.

    Documents longer than a row are cut to it.
    """
    rows: list[list[int]] = []
    for document in sorted(documents, key=len, reverse=True):
        document = document[:length]
        row = next((r for r in rows if len(r) + len(document) <= length), None)
        if row is None:
            rows.append(row := [])
        row.extend(document)
    return [row + [pad] * (length - len(row)) for row in rows]


def whole_windows(
    documents: Iterator[list[int]], length: int, batch: int, pad: int, pool: int = 400
) -> Iterator[Tensor]:
    """Endless ``[batch, length]`` windows in which no document is split."""
    waiting: list[list[int]] = []
    while True:
        rows = fill([next(documents) for _ in range(pool)], length, pad)
        waiting += [rows[i] for i in torch.randperm(len(rows)).tolist()]
        while len(waiting) >= batch:
            yield torch.tensor(waiting[:batch])
            waiting = waiting[batch:]


@dataclass(frozen=True)
class Layout:
    """What follows from the tokens of ``[B, n]`` windows."""

    document: Tensor  # [B, n], number of the document within its row
    positions: Tensor  # [B, n], position within the document
    answer: Tensor  # [B, n] bool, written by the assistant (or plain text), with its <|end|>

    @classmethod
    def of(cls, tokens: Tensor, marks: Marks) -> Layout:
        """Read the layout off the special tokens."""
        index = torch.arange(tokens.shape[1]).expand_as(tokens)
        # Padding counts as a document of its own.
        starts = (tokens == marks.bos) | ((tokens == marks.pad) & (tokens.roll(1, 1) != marks.pad))
        document = starts.cumsum(1)
        first = torch.where(starts, index, 0).cummax(1).values
        opened = (
            torch.where(starts | (tokens == marks.user) | (tokens == marks.assistant), index, 0)
            .cummax(1)
            .values
        )
        by = tokens.gather(1, opened)
        answer = ((by == marks.assistant) | (by == marks.bos)) & (opened != index)
        return cls(document, index - first, answer)

    def causal(self) -> Tensor:
        """``[B, 1, n, n]`` bool: earlier positions of the same document, and itself."""
        same = self.document[:, None, :, None] == self.document[:, None, None, :]
        return same & torch.ones(same.shape[-2:], dtype=torch.bool).tril()


def unrolled_mask(causal: Tensor, step: int) -> Tensor:
    """``[B, 1, n, (step + 1) n]``: what the rows of an unrolled step see.

    Keys are those of steps 0, 1, ..., step in turn. Row ``t`` sees keys of true features (step 0)
    up to ``t - step``, then, for each later step ``i``, only its own chain's key at
    ``t - step + i``; the last one is itself.
    """
    length = causal.shape[-1]
    ones = torch.ones(length, length, dtype=torch.bool)
    blocks = [causal & ones.tril(-step)]
    for i in range(1, step + 1):
        lag = step - i
        blocks.append(causal & ones.tril(-lag) & ones.triu(-lag))
    return torch.cat(blocks, dim=-1)
