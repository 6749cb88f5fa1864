"""The common ground of drafters that are networks with a key-value cache of their own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from specdec.cache import KVCache
from specdec.growth import Frontier, Proposal
from specdec.roles import Drafter, Features
from specdec.state import State, Step


@dataclass(frozen=True)
class _Pending:
    """Committed tokens that the network has not read yet, with the features that go with them."""

    tokens: Tensor  # [B, n]
    features: Tensor | None  # [B, n, H]
    counts: Tensor  # [B]
    longest: int


class NetworkDrafter(Drafter):
    """A draft network that reads committed tokens into its cache and drafts on scratch slots.

    *Stable KV*: the cache keeps only entries made from committed tokens and the target's own
    features. Whatever was computed while drafting is thrown away, and the accepted tokens are read
    again, in one forward, with their true features.

    A subclass gives :meth:`new_cache`, :meth:`forward` and :meth:`logits`.

    Attributes:
        shift: entry i of the cache holds token ``i + shift`` (with feature i, if features are
            needed): 0 for a language model, 1 for an EAGLE head.
    """

    shift: ClassVar[int] = 0
    cache: KVCache

    @abstractmethod
    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache for ``rows`` sequences of about ``capacity`` entries."""

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        features: Tensor | None,
        positions: Tensor,
        among: Tensor,
        after: int,
        scratch_positions: Tensor,
    ) -> Tensor:
        """One forward on ``self.cache``.

        Args:
            tokens: ``[B, n]`` int64.
            features: ``[B, n, H]``: the target's for committed tokens, the output at the parent
                for drafted ones; None unless ``needs.hidden``.
            positions: ``[B, n]`` int64, of the cache entries.
            among: ``[B, n, F]`` bool, visibility among the F slots past each row's length.
            after: the first scratch slot to write.
            scratch_positions: ``[B, F]`` int64.

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
        self._pending: _Pending | None = _Pending(tokens, hidden, counts, longest)
        self._blank = features.hidden.last.new_zeros(state.rows, 1, features.hidden.last.shape[2])
        self._silent = None
        if self.shift and min(state.host_lengths) <= self.shift:
            self._silent = (state.lengths <= self.shift)[:, None, None]

    def propose(self, frontier: Frontier) -> Proposal:
        if frontier.depth == 0:
            self._outputs = self._read_pending()
            self._scratch_positions = self.cache.lengths[:, None][:, :0]
        else:
            self._outputs = self._draft(frontier)
        logits = self.logits(self._outputs)
        if self._silent is not None:
            logits = logits.masked_fill(self._silent, float("-inf"))
        return Proposal(logits)

    def commit(self, step: Step) -> None:
        if self._pending is not None:
            self._read_pending()
        state = self._state
        order = torch.arange(step.longest, device=step.counts.device)
        first = state.lengths - step.counts
        read = (first[:, None] + order).clamp(max=state.tokens.shape[1] - 1)
        features = step.features.last if self.needs.hidden else None
        tokens = state.tokens.gather(1, read)
        self._pending = _Pending(tokens, features, step.counts, step.longest)
        self._silent = None

    def known(self) -> Tensor:
        return self.cache.lengths

    def _read_pending(self) -> Tensor:
        """Read the committed tokens; the output at the last of each row: ``[B, 1, H]``."""
        assert self._pending is not None
        new, self._pending = self._pending, None
        if new.longest == 0:
            return self._blank
        order = torch.arange(new.longest, device=new.tokens.device)
        positions = self.cache.lengths[:, None] + order
        causal = (order <= order[:, None]).expand(len(new.tokens), -1, -1)
        outputs = self.forward(new.tokens, new.features, positions, causal, 0, positions)
        longest = self._state.longest - self.shift
        self.cache.advance(new.counts, longest)
        last = (new.counts - 1).clamp(min=0)[:, None, None]
        return outputs.gather(1, last.expand(-1, 1, outputs.shape[2]))

    def _draft(self, frontier: Frontier) -> Tensor:
        """Run the frontier's tokens on scratch slots: ``[B, n, H]``."""
        features = None
        if self.needs.hidden:
            parents = frontier.parents[:, :, None].expand(-1, -1, self._outputs.shape[2])
            features = self._outputs.gather(1, parents)
        among = frontier.ancestors[:, :, 1:]
        positions = frontier.positions - self.shift
        self._scratch_positions = torch.cat([self._scratch_positions, positions], dim=1)
        return self.forward(
            frontier.tokens,
            features,
            positions,
            among,
            among.shape[2] - frontier.width,
            self._scratch_positions,
        )
