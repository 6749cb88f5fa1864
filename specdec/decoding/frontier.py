"""Frontiers: the nodes of a draft tree that the drafter is asked to expand next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frontier:
    """Some nodes of one level.

    Attributes:
        depth: their level; 0 for the root.
        tokens: ``[B, n]`` int64.
        nodes: ``[B, n]`` int64, their indices among all nodes grown so far.
        parents: ``[B, n]`` int64, their places in the frontier before this one.
        log_value: ``[B, n]``.
        root_position: ``[B, 1]`` int64, the root's position in the sequence.
        before: the frontier before this one; None at the root.
    """

    depth: int
    tokens: Tensor
    nodes: Tensor
    parents: Tensor
    log_value: Tensor
    root_position: Tensor
    before: Frontier | None = None

    @property
    def positions(self) -> Tensor:
        """``[B, n]`` int64, their positions in the sequence."""
        return (self.root_position + self.depth).expand_as(self.tokens)

    @property
    def width(self) -> int:
        """Nodes n per row."""
        return self.tokens.shape[1]

    @property
    def history(self) -> tuple[Tensor, ...]:
        """The tokens ``[B, n]`` of every frontier so far, this one last; side by side they are the
        columns of ``ancestors``."""
        earlier = () if self.before is None else self.before.history
        return (*earlier, self.tokens)

    @cached_property
    def ancestors(self) -> Tensor:
        """``[B, n, F]`` bool over every frontier node so far in order (root first, this frontier
        last): each node's path and itself."""
        itself = torch.eye(self.width, dtype=torch.bool, device=self.tokens.device)
        itself = itself.expand(len(self.tokens), -1, -1)
        if self.before is None:
            return itself
        index = self.parents[:, :, None].expand(-1, -1, self.before.ancestors.shape[2])
        return torch.cat([self.before.ancestors.gather(1, index), itself], dim=2)

    @cached_property
    def paths(self) -> Tensor:
        """``[B, n, depth + 1]`` int64: the tokens from the root to every node, both included."""
        own = self.tokens[:, :, None]
        if self.before is None:
            return own
        index = self.parents[:, :, None].expand(-1, -1, self.before.paths.shape[2])
        return torch.cat([self.before.paths.gather(1, index), own], dim=2)

    def prefixes(self, committed: Tensor) -> Tensor:
        """The tokens before and at every node as a set: ``[B, n, S + F]`` int64.

        Args:
            committed: ``[B, S]`` int64, the committed tokens; what is not on a node's path repeats
                the first of them.
        """
        drafted = torch.cat(self.history, dim=1)[:, None]
        path = torch.where(self.ancestors, drafted, committed[:, :1, None])
        before = committed[:, None].expand(-1, self.width, -1)
        return torch.cat([before, path], dim=2)

    def path(self, row: int, index: int) -> list[int]:
        """The tokens from the root to node ``index`` of a batch row, both included.

        Reads from the device: for drafters that work on the host.
        """
        tokens = torch.cat([level[row] for level in self.history])
        taken: list[int] = tokens[self.ancestors[row, index]].tolist()
        return taken
