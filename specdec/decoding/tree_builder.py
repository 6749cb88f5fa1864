"""Tree builder: the candidates of one expansion phase, and the frontier to expand next."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.proposal import NEVER
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree, Draws, SampledFrom, label
from specdec.errors import PluginError


class TreeBuilder:
    """The candidates in level order.

    Args:
        state: the rows being decoded.

    Attributes:
        size: candidates so far, root included.
        depth: levels so far.
        stopped: whether the policy wants no further level (:meth:`stop`).
    """

    def __init__(self, state: State) -> None:
        root = state.root()[:, None]
        nothing = torch.zeros_like(root)
        self.state = state
        self.size = 1
        self.depth = 0
        self.branching = 0
        self.stopped = False
        self._draws = Draws.POINT
        self._drawn_from: list[tuple[Tensor, Tensor]] = []
        self._tokens = [root]
        self._parents = [nothing - 1]
        self._values = [nothing.float()]
        self._chain: tuple[Tensor, Tensor, Tensor] | None = None
        self._level_start = 0
        self._parents_in_frontier = nothing
        self._chosen: Callable[[], Tensor] | None = None
        self._frontier = Frontier(
            depth=0,
            tokens=root,
            nodes=nothing,
            parents=nothing,
            log_value=self._values[0],
            root_position=state.root_position()[:, None],
        )

    def add(self, tokens: Tensor, parents: Tensor, log_value: Tensor, *, branching: int) -> None:
        """Append one level of candidates.

        Args:
            tokens: ``[B, m]`` int64.
            parents: ``[m]`` or ``[B, m]`` int64, each one's parent by its place in the frontier.
            log_value: ``[B, m]``; ``-inf`` marks a candidate that does not exist.
            branching: the most children of one frontier node.

        Whatever was sampled before, the tree is ``POINT`` from here on.
        """
        self._draws, self._drawn_from = Draws.POINT, []
        self._append(tokens, parents, log_value, branching)

    def add_sampled(
        self,
        tokens: Tensor,
        parents: Tensor,
        log_value: Tensor,
        *,
        branching: int,
        draws: Draws,
        q: Tensor,
    ) -> None:
        """Append one level that was drawn from the draft distribution: for the samplers alone.

        Args:
            tokens, parents, log_value, branching: as for :meth:`add`.
            draws: how siblings were drawn.
            q: ``[B, n, V]``, what each frontier node's children were drawn from.

        Raises:
            PluginError: a tree of other draws.
        """
        if self.size > 1 and self._draws is not draws:
            raise PluginError(f"a tree of {self._draws.value} draws cannot take {draws.value} ones")
        nodes = self.frontier.nodes
        self._append(tokens, parents, log_value, branching)
        self._draws = draws
        self._drawn_from.append((nodes, q))

    def _append(self, tokens: Tensor, parents: Tensor, log_value: Tensor, branching: int) -> None:
        if self._chain is not None:
            raise PluginError("a chain has been merged in: it comes after the last level")
        if self.depth != self.frontier.depth:
            raise PluginError("this frontier has been expanded: choose the next one with advance")
        nodes = self.frontier.nodes
        log_value = self._within_room(log_value, self.depth + 1)
        self._parents_in_frontier = parents
        self._tokens.append(tokens)
        self._parents.append(
            nodes.index_select(1, parents) if parents.dim() == 1 else nodes.gather(1, parents)
        )
        self._values.append(log_value)
        self._level_start = self.size
        self.size += tokens.shape[1]
        self.depth += 1
        self.branching = max(self.branching, branching)

    def _within_room(self, log_value: Tensor, level: int) -> Tensor:
        """Values of a level, ``-inf`` in rows that have no room for it: what is kept of a row's
        candidates must not depend on how much room other rows have."""
        if level <= self.state.least_room:
            return log_value
        return log_value.masked_fill((self.state.room_by_row() < level)[:, None], NEVER)

    def merge_chain(self, tokens: Tensor, log_value: Tensor) -> None:
        """Add a chain below the root, once, after the last level.

        A token of the chain that is a candidate already, on the same path, stays one node, of the
        larger value of the two; the others are new nodes. The tree is ``POINT`` from here on.

        Args:
            tokens: ``[B, D]`` int64.
            log_value: ``[B, D]``, not rising along the chain; ``-inf`` from the first token that
                does not exist.

        Raises:
            PluginError: a chain has been merged in before.
        """
        if self._chain is not None:
            raise PluginError("a chain has been merged in: a tree takes one")
        self._draws, self._drawn_from = Draws.POINT, []
        length = tokens.shape[1]
        log_value = log_value.to(self._values[0].dtype)
        if length > self.state.least_room:
            levels = torch.arange(1, length + 1, device=tokens.device)
            beyond = levels > self.state.room_by_row()[:, None]
            log_value = log_value.masked_fill(beyond, NEVER)
        new = torch.arange(self.size, self.size + length, device=tokens.device)
        added = log_value.clone()
        node, start = torch.zeros_like(tokens[:, :1]), 1
        parents = [node]
        for place in range(min(self.depth, length)):
            level, values = place + 1, self._values[place + 1]
            same = (self._tokens[level] == tokens[:, place, None]) & (values > NEVER)
            same &= self._parents[level] == node
            larger = torch.maximum(values, log_value[:, place, None])
            self._values[level] = torch.where(same, larger, values)
            found, column = same.max(dim=1, keepdim=True)
            added[:, place, None].masked_fill_(found, NEVER)
            node = torch.where(found, column + start, new[place])
            parents.append(node)
            start += values.shape[1]
        further = new[len(parents) - 1 : -1].expand(len(tokens), -1)
        self._chain = tokens, torch.cat([*parents[:length], further], dim=1), added
        self.size += length
        self.branching += 1

    def stop(self) -> None:
        """Draft no further level in this step."""
        self.stopped = True

    def advance(self, chosen: Tensor) -> None:
        """Make ``chosen`` (``[n]`` or ``[B, n]`` columns of the last level) the next frontier."""
        self._chosen = lambda: chosen

    def advance_best(self, k: int) -> None:
        """Make the k candidates of highest value the next frontier, ties to the first."""
        values = self._values[-1]
        self._chosen = lambda: values.sort(dim=1, descending=True, stable=True).indices[:, :k]

    @property
    def frontier(self) -> Frontier:
        """The nodes to expand next, worked out when asked for: the last level's never are."""
        if self._chosen is not None:
            choose, self._chosen = self._chosen, None
            self._frontier = self._advance(choose())
        return self._frontier

    def _advance(self, chosen: Tensor) -> Frontier:
        before, tokens = self._frontier, self._tokens[-1]
        if chosen.dim() == 1:
            chosen = chosen.to(tokens.device).expand(len(tokens), -1)
        parents = self._parents_in_frontier
        return Frontier(
            depth=before.depth + 1,
            tokens=tokens.gather(1, chosen),
            nodes=chosen + self._level_start,
            parents=parents.take(chosen) if parents.dim() == 1 else parents.gather(1, chosen),
            log_value=self._values[-1].gather(1, chosen),
            root_position=before.root_position,
            before=before,
        )

    @property
    def values(self) -> Tensor:
        """``[B, size - 1]``, the values of all candidates, in the order of their nodes."""
        return self._columns(self._values, 2)[:, 1:]

    @property
    def candidate_levels(self) -> Tensor:
        """``[size - 1]`` int64, the levels of all candidates, in the order of their nodes."""
        widths = tuple(level.shape[1] for level in self._values[1:])
        chain = self.size - 1 - sum(widths)
        return _levels(widths, chain, self._values[0].device)

    def tree(self) -> DraftTree:
        """Every candidate, in the order grown, parents before children."""
        values = self._columns(self._values, 2)
        length = 0 if self._chain is None else self._chain[0].shape[1]
        tree = DraftTree(
            tokens=self._columns(self._tokens, 0),
            parents=self._columns(self._parents, 1),
            log_value=values,
            valid=values > NEVER,
            depth=max(self.depth, length),
            branching=self.branching,
            from_text=length > 0 and self.depth == 0,
        )
        if self._draws is Draws.POINT:
            return tree
        expanded = torch.cat([nodes for nodes, _ in self._drawn_from], dim=1)
        entries = torch.arange(expanded.shape[1], device=expanded.device).expand_as(expanded)
        row = torch.zeros_like(tree.tokens).scatter_(1, expanded, entries)
        q = torch.cat([q for _, q in self._drawn_from], dim=1)
        return label(tree, self._draws, SampledFrom(q=q, row=row))

    def _columns(self, levels: list[Tensor], part: int) -> Tensor:
        """The columns of all levels, then those of the chain."""
        return torch.cat(levels if self._chain is None else [*levels, self._chain[part]], dim=1)


@lru_cache(maxsize=1024)
def _levels(widths: tuple[int, ...], chain: int, device: torch.device) -> Tensor:
    """The level of every candidate of levels that are so wide, then of every token of a chain."""
    levels = [level for level, width in enumerate(widths, start=1) for _ in range(width)]
    return torch.tensor([*levels, *range(1, chain + 1)], dtype=torch.int64, device=device)


@cache
def parents_of_children(n: int, k: int, device: torch.device) -> Tensor:
    """The parents ``[n * k]`` int64 of k children for each of n frontier nodes, one node's children
    after the other's."""
    return torch.arange(n, device=device).repeat_interleave(k)
