"""The target's distribution at every node of a draft tree, evaluated only where it is asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from specdec.decoding.tree import DraftTree
from specdec.distribution import Distribution, at_least_float32
from specdec.models.hf_target import Hidden
from specdec.request.logits_processors import Prefix
from specdec.request.stopping import StopRules

if TYPE_CHECKING:
    from specdec.decoding.state import State

# Distributions are read at once if all nodes' logits are at most so many numbers: past it what a
# traversal passes by is dearer than the operators of the traversal. A warp that sorts is as dear as
# several that do not.
_AT_ONCE, _AT_ONCE_ON_CPU, _SORTING = 1 << 23, 1 << 16, 8


class Verification:
    """One target forward over a draft tree.

    Attributes:
        logits: ``[B, N, V]``, the target's scores of the token that follows each node.
        hidden: the hidden states behind them, ``[B, N, H]``.
        active: ``[B]`` bool, rows that are not finished.
        stopping: the rules that end rows.
    """

    def __init__(
        self,
        state: State,
        tree: DraftTree,
        hidden: Hidden,
        logits: Tensor,
    ) -> None:
        self.tree, self.hidden, self.logits = tree, hidden, logits
        self.active = state.active
        self.stopping: StopRules = state.stopping
        self._state = state
        self._lengths, self._span = state.lengths, state.span
        rows = torch.arange(len(tree.tokens), device=tree.tokens.device)
        self._first_node = rows * tree.size

    @property
    def can_sync(self) -> bool:
        """Whether acceptors may read tensors: on a CPU, where that waits for nothing."""
        return self.logits.device.type == "cpu"

    def distribution(self, node: Tensor, asking: Tensor) -> Distribution:
        """The target's distribution p of the token after ``node``, processors and warps applied.

        Ask once for each output position, in order: a stateful processor then sees exactly the
        calls that plain decoding makes. (A stop string is found after the step: behind one it may
        see a few calls more.)

        Args:
            node: ``[B]`` int64.
            asking: ``[B]`` bool, rows that need their distribution; the others' is undefined.
        """
        scores = self.logits.flatten(0, 1).index_select(0, self._first_node + node)
        return self._state.processors.distribution(scores, lambda: self._prefix(node, asking))

    @cached_property
    def best(self) -> Tensor | None:
        """The target's token after every node, ``[B, N]`` int64, where each distribution is a point
        mass that no processor changes (temperature 0); None otherwise."""
        processors = self._state.processors
        if not processors.greedy or processors.penalties or processors.warps:
            return None
        return at_least_float32(self.logits).argmax(dim=-1)  # in bfloat16 it is slow on a CPU

    @cached_property
    def distributions(self) -> Distribution | None:
        """The target's distribution after every node at once, ``[B, N, V]``; None at temperature 0,
        where a processor reads a prefix, and where the nodes that a traversal passes by are too
        many numbers."""
        processors = self._state.processors
        most = _AT_ONCE_ON_CPU if self.logits.device.type == "cpu" else _AT_ONCE
        most //= _SORTING if processors.sorts else 1
        if processors.greedy or processors.reads_prefix or self.logits.numel() > most:
            return None
        return Distribution.of(processors.scores(self.logits.flatten(0, 1)).view_as(self.logits))

    def position(self, node: Tensor) -> Tensor:
        """Index in the whole sequence of the token that follows ``node [B]``: ``[B]`` int64."""
        depth = self.tree.depths.gather(1, node[:, None]).squeeze(1)
        return self._lengths + depth

    def root_position(self) -> Tensor:
        """Index in the whole sequence of the root: ``[B]`` int64."""
        return self._lengths - 1

    def _prefix(self, node: Tensor, asking: Tensor) -> Prefix:
        tree, state = self.tree, self._state
        index = node[:, None, None].expand(-1, 1, tree.size)
        on_path = tree.ancestors.gather(1, index).squeeze(1)
        padding = state.tokens[:, :1].expand(-1, tree.depth + 1)
        tokens = torch.cat([state.tokens[:, : self._span], padding], dim=1)
        spare = self._span + tree.depth
        slot = torch.where(on_path, self.root_position()[:, None] + tree.depths, spare)
        tokens = tokens.scatter(1, slot, tree.tokens)[:, :spare]
        return Prefix(tokens, self.position(node), asking)
