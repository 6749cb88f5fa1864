"""Network drafters: draft networks with a key-value cache of their own."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Features, LevelDrafter, LevelProposer
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.drafting.unread_tokens import UnreadTokens
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.hidden_states import HiddenStates

# Steps without drafts leave tokens unread, up to this many, so that they cost no draft forward.
MOST_UNREAD = 128


class NetworkDrafter(LevelDrafter):
    """A draft network that reads committed tokens into its cache and drafts on scratch slots.

    A subclass gives :meth:`new_cache`, :meth:`forward` and :meth:`logits_at`. One that reads hidden
    states drafts on its own outputs, which stand for those of draft tokens; where what it reads
    with committed tokens is of another kind, it gives :meth:`features` and :meth:`fuse` as well.

    Heads that draft every depth from what was read last (Medusa, Hydra) set ``reads_drafts`` to
    False: draft tokens are then no input of :meth:`forward`.

    Attributes:
        reads_drafts: whether draft tokens go through :meth:`forward`, on scratch slots.
        shift: entry i of the cache holds token ``i + shift`` (with feature i, if features are
            needed): 0 for a language model, 1 for an EAGLE head.
        windowed: whether a layer has a sliding window, so that :meth:`forward` needs the positions
            of the scratch slots.
        vocabulary: ``[C]`` int64, the tokens that the columns of :meth:`logits_at` stand for; None
            for all of V.
    """

    shift: ClassVar[int] = 0
    reads_drafts: ClassVar[bool] = True
    windowed: bool = False
    vocabulary: Tensor | None = None

    @abstractmethod
    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache for ``rows`` sequences of about ``capacity`` entries."""

    def features(self, hidden: HiddenStates) -> Tensor:
        """What is read with committed tokens, of the target's hidden states: ``[B, n, F]``."""
        return hidden.last

    def fuse(self, features: Tensor) -> Tensor:
        """``[B, n, F]``, read with committed tokens, as the ``[B, n, h]`` that :meth:`forward`
        takes; drafts feed back outputs as they are."""
        return features

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        features: Tensor | None,
        positions: Tensor,
        visible: Tensor,
        cache: KVCache,
        scratch_positions: Tensor | None,
    ) -> Tensor:
        """One forward on ``cache``, whose slots are reserved.

        Args:
            tokens: ``[B, n]`` int64.
            features: ``[B, n, h]``: the target's, fused, for committed tokens, the output at the
                parent for drafted ones; None unless ``needs.hidden``.
            positions: ``[B, n]`` int64, of the cache entries.
            visible: ``[B, n, view]`` bool, the slots that each may attend to.
            scratch_positions: ``[B, F]`` int64, of the first F slots past each row's length; None
                unless ``windowed``.

        Returns:
            Outputs ``[B, n, h]``.
        """

    def prefill(self, tokens: Tensor, features: Tensor | None, cache: KVCache) -> Tensor:
        """The first forward of every row, over committed tokens, each of which attends to those
        before it. Overridden where attention does so without a mask, which is faster.

        Args:
            tokens: ``[B, n]`` int64; rows with fewer are padded on the right.
            features: as for :meth:`forward`.
            cache: empty; the first n slots are to be reserved.

        Returns:
            Outputs ``[B, n, h]``.
        """
        batch, n = tokens.shape
        order = torch.arange(n, device=tokens.device)
        positions, causal = order.expand(batch, -1), order <= order[:, None]
        cache.reserve_prefix(n)
        return self.forward(
            tokens, features, positions, causal.expand(batch, -1, -1), cache, positions
        )

    @abstractmethod
    def logits_at(self, outputs: Tensor, frontier: Frontier) -> Tensor:
        """Draft logits ``[B, n, C]`` at a frontier of n nodes.

        Args:
            outputs: ``[B, n, h]``, at each node; ``[B, 1, h]`` unless ``reads_drafts``, at the last
                of the tokens that were read, whatever the depth.
        """

    def start(self, state: State, features: Features) -> NetworkProposer:
        return NetworkProposer(self, state, features)


class NetworkProposer(LevelProposer):
    """The proposer of one generation.

    The cache keeps only entries made from committed tokens and the target's own features. Whatever
    was computed while drafting is thrown away, and the accepted tokens are read again, in one
    forward, with their true features.

    Attributes:
        cache: of the network; all committed tokens but those that are unread.
    """

    def __init__(self, network: NetworkDrafter, state: State, features: Features) -> None:
        self._network = network
        capacity = state.longest if state.cache is None else state.cache.capacity
        self.cache = network.new_cache(state.rows, capacity)
        self._begin(state, features)

    def resume(self, state: State, features: Features) -> None:
        starts = torch.tensor(list(features.starts), device=state.tokens.device)
        self.cache.truncate(starts, max(features.starts))
        self._begin(state, features)

    def _begin(self, state: State, features: Features) -> None:
        self._state, shift = state, self._network.shift
        starts = torch.tensor(list(features.starts), device=state.tokens.device)
        counts = state.lengths - shift - starts
        longest = max(
            n - shift - start for n, start in zip(state.host_lengths, features.starts, strict=True)
        )
        read = starts[:, None] + shift + torch.arange(longest, device=starts.device)
        tokens = state.tokens.gather(1, read.clamp(max=state.tokens.shape[1] - 1))
        network = self._network
        hidden = network.features(features.hidden) if network.needs.hidden else None
        self._unread = [UnreadTokens(tokens, hidden, counts, longest)]
        self._left = 0  # tokens of a row that steps have left unread
        self._dtype = features.hidden.last.dtype
        self._outputs: Tensor | None = None
        self._silent: Tensor | None = None
        if shift and min(state.host_lengths) <= shift:
            self._silent = (state.lengths <= shift)[:, None, None]

    @property
    def unread_tokens(self) -> int:
        return sum(each.longest for each in self._unread)

    def cached_tokens(self) -> Tensor:
        return self.cache.lengths

    def propose(self, frontier: Frontier) -> Proposal:
        if frontier.depth == 0:
            self._outputs = self._read()
            self._visible = self.cache.committed()[:, None]
            self._drafted = 0
            self._scratch_positions: Tensor | None = None
        elif self._outputs is not None and self._network.reads_drafts:
            self._outputs = self._draft(frontier, self._outputs)
        if self._outputs is None:  # no row has anything that could be read
            return self._no_opinion(frontier)
        logits = self._network.logits_at(self._outputs, frontier)
        if self._silent is not None:
            logits = logits.masked_fill(self._silent, float("-inf"))
        return Proposal(logits, self._network.vocabulary)

    def commit(self, step: Step) -> None:
        network = self._network
        features = network.features(step.features) if network.needs.hidden else None
        full = min(map(len, step.new_tokens)) == step.longest
        new = UnreadTokens(self._committed(step), features, step.counts, step.longest, full)
        if self._unread and self._left + new.longest > MOST_UNREAD:
            self._read()
        self._unread.append(new)
        self._left += new.longest
        self._silent = None

    def _committed(self, step: Step) -> Tensor:
        """What a step has committed: ``[B, longest]``, anything past a row's count."""
        state = self._state
        if step.tree.size == 1:  # most steps of plain decoding
            return step.acceptance.bonus[:, None]
        order = torch.arange(step.longest, device=step.counts.device)
        read = ((state.lengths - step.counts)[:, None] + order).clamp(max=state.tokens.shape[1] - 1)
        return state.tokens.gather(1, read)

    def keep_rows(self, rows: Tensor) -> None:
        if len(self._unread) > 2:
            first, *later = self._unread
            self._unread = [first, UnreadTokens.of_all(later)]
        self.cache.keep_rows(rows, self.cache.longest)
        if self._silent is not None:
            self._silent = self._silent.index_select(0, rows)
        self._unread = [unread.keep_rows(rows) for unread in self._unread]

    def _no_opinion(self, frontier: Frontier) -> Proposal:
        vocabulary = self._network.vocabulary
        columns = self._state.vocab_size if vocabulary is None else len(vocabulary)
        shape, device = (*frontier.tokens.shape, columns), frontier.tokens.device
        logits = torch.full(shape, float("-inf"), dtype=self._dtype, device=device)
        return Proposal(logits, vocabulary)

    def _read(self) -> Tensor | None:
        """Read the committed tokens; the output at the last of each row: ``[B, 1, h]``, None where
        there are no tokens."""
        new, self._unread, self._left = UnreadTokens.of_all(self._unread), [], 0
        if new.longest == 0:
            return None
        features = None if new.features is None else self._network.fuse(new.features)
        if self.cache.longest == 0:
            outputs = self._network.prefill(new.tokens, features, self.cache)
        else:
            outputs = self._extend(new.tokens, features)
        self.cache.advance(new.counts, self._state.longest - self._network.shift)
        last = (new.counts - 1).clamp(min=0)[:, None, None]
        return outputs.gather(1, last.expand(-1, 1, outputs.shape[2]))

    def _extend(self, tokens: Tensor, features: Tensor | None) -> Tensor:
        """Run committed tokens that follow those in the cache: ``[B, n, h]``."""
        order = torch.arange(tokens.shape[1], device=tokens.device)
        positions = self.cache.lengths[:, None] + order
        causal = (order <= order[:, None]).expand(len(tokens), -1, -1)
        self.cache.reserve(tokens.shape[1])
        visible = self.cache.visible(causal)
        return self._network.forward(tokens, features, positions, visible, self.cache, positions)

    def _draft(self, frontier: Frontier, outputs: Tensor) -> Tensor:
        """Run the frontier's tokens on scratch slots, below ``outputs``: ``[B, n, h]``."""
        network = self._network
        batch, n = frontier.tokens.shape
        rows = frontier.parents
        if batch > 1:
            rows = rows + torch.arange(batch, device=rows.device)[:, None] * outputs.shape[1]
        rows = rows.flatten()
        features = None
        if network.needs.hidden:
            features = outputs.flatten(0, 1).index_select(0, rows).view(batch, n, -1)
        positions = (frontier.root_position + (frontier.depth - network.shift)).expand(-1, n)
        if network.windowed:
            before = () if self._scratch_positions is None else (self._scratch_positions,)
            self._scratch_positions = torch.cat([*before, positions], dim=1)
        self.cache.reserve(n, after=self._drafted)
        self._visible = self.cache.inherit(self._visible, rows, self._drafted)
        self._drafted += n
        return network.forward(
            frontier.tokens,
            features,
            positions,
            self._visible,
            self.cache,
            self._scratch_positions,
        )
