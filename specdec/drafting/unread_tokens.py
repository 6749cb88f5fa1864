"""Unread tokens: committed tokens that a draft network has not read yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor


@dataclass
class UnreadTokens:
    """Some of them, with the features that go with them.

    Attributes:
        tokens: ``[B, n]`` int64.
        features: ``[B, n, H]``; None if the network reads none.
        counts: ``[B]`` int64, how many of each row's n count.
        longest: at least the largest count.
        full: whether every count is known to be the largest.
    """

    tokens: Tensor
    features: Tensor | None
    counts: Tensor
    longest: int
    full: bool = False

    @classmethod
    def of_all(cls, pending: Sequence[UnreadTokens]) -> UnreadTokens:
        """One after the other, row by row without a gap."""
        runs = [(full, list(run)) for full, run in groupby(pending, attrgetter("full"))]
        joined = [[cls._side_by_side(run)] if full else run for full, run in runs]
        return cls._closed_up([each for run in joined for each in run])

    @classmethod
    def _side_by_side(cls, pending: Sequence[UnreadTokens]) -> UnreadTokens:
        """One after the other, where all are full."""
        if len(pending) == 1:
            return pending[0]
        longest = sum(each.longest for each in pending)
        tokens = torch.cat([each.tokens for each in pending], dim=1)
        features = [each.features for each in pending if each.features is not None]
        counts = torch.full_like(pending[0].counts, longest)
        return cls(tokens, torch.cat(features, 1) if features else None, counts, longest, True)

    @classmethod
    def _closed_up(cls, pending: Sequence[UnreadTokens]) -> UnreadTokens:
        """One after the other, what lies past a row's count left out."""
        if len(pending) == 1:
            return pending[0]
        device = pending[0].tokens.device
        longest = sum(each.longest for each in pending)
        widths = torch.tensor([each.longest for each in pending], device=device)
        parts = torch.arange(len(pending), device=device)
        owner = parts.repeat_interleave(widths, output_size=longest)
        order = torch.arange(longest, device=device) - (widths.cumsum(0) - widths)[owner]
        counts = torch.stack([each.counts for each in pending], dim=1)
        slots = (counts.cumsum(dim=1) - counts)[:, owner] + order
        slots = torch.where(order < counts[:, owner], slots, longest)  # a column to throw away
        tokens = torch.cat([each.tokens for each in pending], dim=1)
        room = tokens.new_zeros(len(tokens), longest + 1)
        tokens = room.scatter_(1, slots, tokens)[:, :longest]
        features = None
        if pending[0].features is not None:
            found = torch.cat([each.features for each in pending if each.features is not None], 1)
            index = slots[:, :, None].expand_as(found)
            wide = found.new_zeros(len(found), longest + 1, found.shape[2])
            features = wide.scatter_(1, index, found)[:, :longest]
        return cls(tokens, features, counts.sum(dim=1), longest)

    def keep_rows(self, rows: Tensor) -> UnreadTokens:
        """The same for some rows of the batch."""
        return UnreadTokens(
            self.tokens.index_select(0, rows),
            None if self.features is None else self.features.index_select(0, rows),
            self.counts.index_select(0, rows),
            self.longest,
            self.full,
        )
