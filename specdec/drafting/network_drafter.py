"""The common ground of drafters that are networks with a key-value cache of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Drafter, Features
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State, Step
from specdec.kv_cache.kv_cache import KVCache

# Steps without drafts leave tokens unread, up to this many, so that they cost no draft forward.
UNREAD = 128


@dataclass
class _Pending:
    """Committed tokens that the network has not read yet, with the features that go with them."""

    tokens: Tensor  # [B, n]
    features: Tensor | None  # [B, n, H]
    counts: Tensor  # [B]
    longest: int  # at least the largest count
    full: bool = False  # whether every count is known to be the largest

    @classmethod
    def of_all(cls, pending: Sequence[_Pending]) -> _Pending:
        """One after the other, row by row without a gap."""
        runs = [(full, list(run)) for full, run in groupby(pending, attrgetter("full"))]
        joined = [[cls._side_by_side(run)] if full else run for full, run in runs]
        return cls._closed_up([each for run in joined for each in run])

    @classmethod
    def _side_by_side(cls, pending: Sequence[_Pending]) -> _Pending:
        """One after the other, where all are full."""
        if len(pending) == 1:
            return pending[0]
        longest = sum(each.longest for each in pending)
        tokens = torch.cat([each.tokens for each in pending], dim=1)
        features = [each.features for each in pending if each.features is not None]
        counts = torch.full_like(pending[0].counts, longest)
        return cls(tokens, torch.cat(features, 1) if features else None, counts, longest, True)

    @classmethod
    def _closed_up(cls, pending: Sequence[_Pending]) -> _Pending:
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

    def widened(self, width: int) -> _Pending:
        """The same in a buffer of ``width`` columns."""
        more = width - self.tokens.shape[1]
        features = self.features
        if more:
            features = None if features is None else pad(features, (0, 0, 0, more))
        return _Pending(pad(self.tokens, (0, more)), features, self.counts, width)

    def keep_rows(self, rows: Tensor) -> _Pending:
        """The same for some rows of the batch."""
        return _Pending(
            self.tokens.index_select(0, rows),
            None if self.features is None else self.features.index_select(0, rows),
            self.counts.index_select(0, rows),
            self.longest,
            self.full,
        )


class NetworkDrafter(Drafter):
    """A draft network that reads committed tokens into its cache and drafts on scratch slots.

    *Stable KV*: the cache keeps only entries made from committed tokens and the target's own
    features. Whatever was computed while drafting is thrown away, and the accepted tokens are read
    again, in one forward, with their true features.

    A subclass gives :meth:`new_cache`, :meth:`forward` and :meth:`logits`.

    Attributes:
        shift: entry i of the cache holds token ``i + shift`` (with feature i, if features are
            needed): 0 for a language model, 1 for an EAGLE head.
        windowed: whether a layer has a sliding window, so that :meth:`forward` is to be told the
            positions of the scratch slots.
        vocabulary: ``[C]`` int64, the tokens that the columns of :meth:`logits` stand for; None for
            all of V.
    """

    shift: ClassVar[int] = 0
    windowed: bool = False
    vocabulary: Tensor | None = None
    cache: KVCache
    _drafted: int = 0
    _left: int = 0  # tokens of a row that steps have left unread

    @abstractmethod
    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache for ``rows`` sequences of about ``capacity`` entries."""

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        features: Tensor | None,
        positions: Tensor,
        visible: Tensor,
        scratch_positions: Tensor | None,
    ) -> Tensor:
        """One forward on ``self.cache``, whose slots are reserved.

        Args:
            tokens: ``[B, n]`` int64.
            features: ``[B, n, H]``: the target's for committed tokens, the output at the parent
                for drafted ones; None unless ``needs.hidden``.
            positions: ``[B, n]`` int64, of the cache entries.
            visible: ``[B, n, view]`` bool, the slots that each may attend to.
            scratch_positions: ``[B, F]`` int64, of the first F slots past each row's length; None
                unless ``windowed``.

        Returns:
            Outputs ``[B, n, H]``.
        """

    @abstractmethod
    def logits(self, outputs: Tensor) -> Tensor:
        """Draft logits ``[B, n, C]`` of ``outputs [B, n, H]``."""

    def begin(self, state: State, features: Features) -> None:
        self._state = state
        starts = torch.tensor(list(features.starts), device=state.tokens.device)
        if any(features.starts):
            self.cache.truncate(starts, max(features.starts))
        else:
            self.cache = self.new_cache(state.rows, state.longest)
        counts = state.lengths - self.shift - starts
        longest = max(
            n - self.shift - start
            for n, start in zip(state.host_lengths, features.starts, strict=True)
        )
        read = starts[:, None] + self.shift + torch.arange(longest, device=starts.device)
        tokens = state.tokens.gather(1, read.clamp(max=state.tokens.shape[1] - 1))
        hidden = features.hidden.last[:, :longest] if self.needs.hidden else None
        self._pending, self._left = [_Pending(tokens, hidden, counts, longest)], 0
        self._blank = features.hidden.last.new_zeros(state.rows, 1, features.hidden.last.shape[2])
        self._silent = None
        if self.shift and min(state.host_lengths) <= self.shift:
            self._silent = (state.lengths <= self.shift)[:, None, None]

    def propose(self, frontier: Frontier) -> Proposal:
        if frontier.depth == 0:
            self._outputs = self._read_pending()
            self._visible = self.cache.committed()[:, None]
            self._drafted = 0
            self._scratch_positions: Tensor | None = None
        else:
            self._outputs = self._draft(frontier)
        logits = self.logits(self._outputs)
        if self._silent is not None:
            logits = logits.masked_fill(self._silent, float("-inf"))
        return Proposal(logits, self.vocabulary)

    def commit(self, step: Step) -> None:
        features = step.features.last if self.needs.hidden else None
        full = min(map(len, step.new_tokens)) == step.longest
        new = _Pending(self._committed(step), features, step.counts, step.longest, full)
        if self._pending and self._left + new.longest > UNREAD:
            self._read_pending()
        self._pending.append(new)
        self._left += new.longest
        self._silent = None

    def _committed(self, step: Step) -> Tensor:
        """What a step has committed: ``[B, longest]``, anything past a row's count."""
        state = self._state
        if step.tree.size == 1:  # most steps while drafting rests
            return step.acceptance.bonus[:, None]
        order = torch.arange(step.longest, device=step.counts.device)
        read = ((state.lengths - step.counts)[:, None] + order).clamp(max=state.tokens.shape[1] - 1)
        return state.tokens.gather(1, read)

    def keep_rows(self, rows: Tensor) -> None:
        if len(self._pending) > 2:
            first, *later = self._pending
            self._pending = [first, _Pending.of_all(later)]
        self.cache.keep_rows(rows, self.cache.longest)
        self._blank = self._blank.index_select(0, rows)
        if self._silent is not None:
            self._silent = self._silent.index_select(0, rows)
        self._pending = [pending.keep_rows(rows) for pending in self._pending]

    def cached_tokens(self) -> Tensor:
        return self.cache.lengths

    def _read_pending(self) -> Tensor:
        """Read the committed tokens; the output at the last of each row: ``[B, 1, H]``."""
        new, self._pending, self._left = _Pending.of_all(self._pending), [], 0
        if new.longest == 0:
            return self._blank
        order = torch.arange(new.longest, device=new.tokens.device)
        positions = self.cache.lengths[:, None] + order
        causal = (order <= order[:, None]).expand(len(new.tokens), -1, -1)
        self.cache.reserve(new.longest)
        visible = self.cache.visible(causal)
        outputs = self.forward(new.tokens, new.features, positions, visible, positions)
        longest = self._state.longest - self.shift
        self.cache.advance(new.counts, longest)
        last = (new.counts - 1).clamp(min=0)[:, None, None]
        return outputs.gather(1, last.expand(-1, 1, outputs.shape[2]))

    def _draft(self, frontier: Frontier) -> Tensor:
        """Run the frontier's tokens on scratch slots: ``[B, n, H]``."""
        batch, n = frontier.tokens.shape
        rows = frontier.parents
        if batch > 1:
            rows = rows + torch.arange(batch, device=rows.device)[:, None] * self._outputs.shape[1]
        rows = rows.flatten()
        features = None
        if self.needs.hidden:
            features = self._outputs.flatten(0, 1).index_select(0, rows).view(batch, n, -1)
        positions = (frontier.root_position + (frontier.depth - self.shift)).expand(-1, n)
        if self.windowed:
            before = () if self._scratch_positions is None else (self._scratch_positions,)
            self._scratch_positions = torch.cat([*before, positions], dim=1)
        self.cache.reserve(n, after=self._drafted)
        self._visible = self.cache.inherit(self._visible, rows, self._drafted)
        self._drafted += n
        return self.forward(
            frontier.tokens, features, positions, self._visible, self._scratch_positions
        )
