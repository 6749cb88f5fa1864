"""Draft trees: tokens, parents and what follows from them, all in tensor operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from specdec.decoding.companions import Companions

# What an option of a tree may ask for at most: published trees have 63 nodes of 10 children, and
# beyond this a step takes more memory and time than any drafts save.
MOST_NODES = 1024  # draft tokens that a step verifies
MOST_CHILDREN = 256  # children of a node, and nodes that are expanded on a level
MOST_LEVELS = 64  # levels of draft tokens below the root


class Draws(Enum):
    """How siblings of a tree came about, which decides how they may be rejected exactly."""

    POINT = "point"
    IID = "iid"
    WITHOUT_REPLACEMENT = "without replacement"


@dataclass(frozen=True)
class SampledFrom:
    """The distributions that a sampled tree's children were drawn from.

    Attributes:
        q: ``[B, F, V]`` probabilities, one distribution for each expanded node.
        row: ``[B, N]`` int64, the entry of ``q`` that node ``i``'s children were drawn from.
    """

    q: Tensor
    row: Tensor

    def at(self, node: Tensor) -> Tensor:
        """The draft distribution at ``node [B]``: ``[B, V]``."""
        row = self.row.gather(1, node[:, None])
        index = row[:, :, None].expand(-1, 1, self.q.shape[-1])
        return self.q.gather(1, index).squeeze(1)


@dataclass(frozen=True)
class DraftTree:
    """Draft tokens below each row's root; node 0 is the root, the last committed token.

    Attributes:
        tokens: ``[B, N]`` int64.
        parents: ``[B, N]`` int64; ``parents[:, 0] == -1`` and ``parents[:, i] < i``.
        log_value: ``[B, N]`` log of the product of the drafter's confidences along the path.
        valid: ``[B, N]`` bool; an invalid node is padding and is never accepted.
        depth: levels below the root.
        branching: the most children a node can have.
        draws: how siblings came about. Set by the core's samplers alone.
        sampled_from: the distributions that the children were drawn from; None for ``POINT``.
        from_text: whether the text itself suggested it, rather than the drafter.
        companions: tokens that the verification reads besides; None for none.
    """

    tokens: Tensor
    parents: Tensor
    log_value: Tensor
    valid: Tensor
    depth: int
    branching: int
    draws: Draws = field(default=Draws.POINT, init=False)
    sampled_from: SampledFrom | None = field(default=None, init=False)
    from_text: bool = False
    companions: Companions | None = None

    @classmethod
    def root(cls, tokens: Tensor) -> DraftTree:
        """A tree of the roots ``[B]`` alone: verifying it is one step of plain decoding."""
        column = tokens[:, None]
        return cls(
            tokens=column,
            parents=torch.full_like(column, -1),
            log_value=torch.zeros_like(column, dtype=torch.float32),
            valid=torch.ones_like(column, dtype=torch.bool),
            depth=0,
            branching=0,
        )

    @classmethod
    def chain(cls, root: Tensor, tokens: Tensor, valid: Tensor | None = None) -> DraftTree:
        """The linear case: draft tokens ``[B, D]`` below the roots ``[B]``.

        Args:
            valid: ``[B, D]`` bool, False from the first missing draft token on.
        """
        batch, depth = tokens.shape
        parents = torch.arange(-1, depth, device=tokens.device).expand(batch, -1)
        real = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
        real = torch.cat([torch.ones_like(real[:, :1]) if depth else root[:, None] >= 0, real], 1)
        return cls(
            tokens=torch.cat([root[:, None], tokens], dim=1),
            parents=parents.contiguous(),
            log_value=torch.zeros_like(parents, dtype=torch.float32),
            valid=real,
            depth=depth,
            branching=min(depth, 1),
        )

    @property
    def size(self) -> int:
        """Nodes N, root included."""
        return self.tokens.shape[1]

    @property
    def with_companions(self) -> DraftTree:
        """Everything that a verification reads: the tree, then its companions as invalid nodes."""
        beside = self.companions
        if beside is None:
            return self
        more = (0, beside.tokens.shape[1])
        return DraftTree(
            tokens=torch.cat([self.tokens, beside.tokens], dim=1),
            parents=torch.cat([self.parents, beside.parents], dim=1),
            log_value=pad(self.log_value, more, value=-math.inf),
            valid=pad(self.valid, more, value=False),
            depth=max(self.depth, beside.depth),
            branching=self.branching,
        )

    @cached_property
    def ancestors(self) -> Tensor:
        """``[B, N, N]`` bool: row i marks node i and everything above it, the root included."""
        itself = torch.eye(self.size, dtype=torch.bool, device=self.parents.device)
        if self.depth == 0:
            return itself.expand(len(self.parents), -1, -1)
        nodes = torch.arange(self.size, device=self.parents.device)
        step = (self.parents[:, :, None] == nodes).logical_or_(itself)
        if self.depth == 1:
            return step
        with torch.autocast(step.device.type, enabled=False):  # half precision ends at 65504
            return self._paths(step.float()) > 0

    def _paths(self, ways: Tensor) -> Tensor:
        """How many ways lead up from each node to each other, from those of one step."""
        for squaring in range(1, math.ceil(math.log2(self.depth)) + 1):
            ways = ways @ ways
            if squaring % 6 == 0:  # counts of paths, which 2**6 steps keep below 2**64
                ways = ways.clamp_(max=1)
        return ways

    @cached_property
    def depths(self) -> Tensor:
        """``[B, N]`` int64: levels below the root."""
        return self.ancestors.sum(dim=-1) - 1

    @cached_property
    def children(self) -> Tensor:
        """``[B, N, branching]`` int64: the children of each node in index order, then -1."""
        batch, size = self.parents.shape
        real = self.valid & (self.parents >= 0)
        siblings = (self.parents[:, :, None] == self.parents[:, None, :]) & real[:, None, :]
        rank = siblings.tril(diagonal=-1).sum(dim=-1)
        real &= rank < self.branching
        table = self.parents.new_full((batch, size * self.branching + 1), -1)
        slot = torch.where(real, self.parents * self.branching + rank, size * self.branching)
        nodes = torch.arange(size, device=table.device).expand(batch, -1)
        table.scatter_(1, slot, torch.where(real, nodes, -1))
        return table[:, :-1].view(batch, size, self.branching)

    def child(self, node: Tensor, rank: int) -> Tensor:
        """The child number ``rank`` of ``node [B]``: ``[B]`` int64, -1 if there is none."""
        return self.children[:, :, rank].gather(1, node[:, None]).squeeze(1)

    def token(self, node: Tensor) -> Tensor:
        """The token of ``node [B]``: ``[B]`` int64; the root's for -1."""
        return self.tokens.gather(1, node.clamp(min=0)[:, None]).squeeze(1)

    def child_with(self, node: Tensor, token: Tensor) -> Tensor:
        """The child of ``node [B]`` that carries ``token [B]``: ``[B]`` int64, -1 if none."""
        found, index = (self._edges == ((node << 32) | token)[:, None]).max(dim=1)
        return torch.where(found, index, -1)

    @cached_property
    def _edges(self) -> Tensor:
        """``[B, N]`` int64: parent and token of each node in one number; negative: none."""
        return torch.where(self.valid, (self.parents << 32) | self.tokens, -1)

    @cached_property
    def unreachable(self) -> Tensor:
        """``[B, N]`` bool: invalid nodes, and those whose token an earlier sibling carries."""
        edges = self._edges
        twice = (edges[:, :, None] == edges[:, None]).tril_(diagonal=-1).any(dim=2)
        return twice.logical_or_(edges < 0)

    def has_child(self, node: Tensor) -> Tensor:
        """Whether ``node [B]`` has a draft token below it: ``[B]`` bool."""
        return ((self.parents == node[:, None]) & self.valid).any(dim=1)

    def limited(self, levels: Tensor) -> DraftTree:
        """The same tree with each row's nodes deeper than ``levels [B]`` made invalid.

        The result is ``POINT``: levels that depend on what was drawn would bias a sampled tree.
        """
        return replace(self, valid=self.valid & (self.depths <= levels[:, None]))


def label(tree: DraftTree, draws: Draws, sampled_from: SampledFrom | None) -> DraftTree:
    """Say how a tree's siblings were drawn: for the core's samplers alone."""
    object.__setattr__(tree, "draws", draws)
    object.__setattr__(tree, "sampled_from", sampled_from)
    return tree


def tree_from_choices(choices: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Paths of child ranks, checked and put in level order.

    Args:
        choices: each entry is a node, named by the rank of every token on its path, e.g. ``[0, 2]``
            for the third child of the likeliest token.

    Raises:
        ValueError: a path whose parent is not listed, or a negative rank.
    """
    paths = sorted({tuple(path) for path in choices}, key=lambda path: (len(path), path))
    known = {(), *paths}
    for path in paths:
        if not path or min(path) < 0:
            raise ValueError(f"{list(path)} is no path of child ranks: use ranks from 0 upwards")
        if path[:-1] not in known:
            raise ValueError(f"{list(path)} needs its parent {list(path[:-1])} among the choices")
    return paths
