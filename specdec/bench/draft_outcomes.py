"""What became of draft tokens: by their confidence, and by their position in the tree."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specdec.bench.reliability import Reliability
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree, Draws


class VerifiedTree(NamedTuple):
    """What is kept of a step: nothing that is as large as the vocabulary.

    Attributes:
        tree: without the distributions that it was sampled from.
        kept, new_tokens, request_rows: as of the step.
        sampled: whether its tokens were drawn, so their values are no acceptance probabilities.
    """

    tree: DraftTree
    kept: Tensor
    new_tokens: list[list[int]]
    request_rows: Sequence[int]
    sampled: bool

    @classmethod
    def of(cls, step: Step) -> VerifiedTree:
        """Keep it; nothing is read from the device."""
        tree = step.tree
        bare = replace(tree, companions=None)
        sampled = tree.draws is not Draws.POINT
        return cls(bare, step.kept, step.new_tokens, step.request_rows, sampled)


class Children(NamedTuple):
    """The draft tokens below the nodes that the committed text passes through.

    Attributes:
        confidence: ``[m]`` float64, the child's value over its parent's.
        outcome: ``[m]`` bool, whether it is the token that was committed there.
        depth: ``[m]`` int64, levels below the root.
        rank: ``[m]`` int64, its place among its siblings by confidence, from 1.
    """

    confidence: Tensor
    outcome: Tensor
    depth: Tensor
    rank: Tensor


def children(verified: Step | VerifiedTree, row: int = 0) -> Children:
    """The draft tokens of ``row`` that were accepted or rejected.

    Under an acceptor that is seed-exact the token committed after such a node is the target's own
    there, whatever the tree held: an outcome for each child that no choice of the tree biases.
    """
    tree, new = verified.tree, verified.new_tokens[row]
    nodes = verified.kept[row, : len(new)]
    device = nodes.device
    target = torch.tensor(new, dtype=torch.int64, device=device)
    below = (tree.parents[row] == nodes[:, None]) & ~tree.unreachable[row]
    values = tree.log_value[row].double()
    confidence = (values - values[nodes][:, None]).exp()
    order = confidence.masked_fill(~below, -1.0).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, tree.size + 1, device=device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    depth = torch.arange(1, len(new) + 1, device=device)[:, None].expand_as(below)
    outcome = tree.tokens[row] == target[:, None]
    return Children(confidence[below], outcome[below], depth[below], rank[below])


@dataclass
class Positions:
    """Draft tokens by their position in the tree, whose parent the text passed through.

    Attributes:
        tried: how many there were, by depth, then by rank among the siblings; both from 1.
        accepted: how many of them were committed, likewise.
    """

    tried: list[list[int]] = field(default_factory=list)
    accepted: list[list[int]] = field(default_factory=list)

    def add(self, depth: Tensor, rank: Tensor, accepted: Tensor) -> None:
        """Take in more of them, each ``[m]``."""
        if not len(depth):
            return
        deepest, last = int(depth.max()), int(rank.max())
        place = ((depth - 1) * last + rank - 1).cpu()
        for own, weights in ((self.tried, None), (self.accepted, accepted.double().cpu())):
            found = torch.bincount(place, weights, deepest * last).view(deepest, last)
            _add_table(own, [[int(count) for count in line] for line in found.tolist()])

    def at(self, depth: int, rank: int) -> tuple[int, int]:
        """How many there were at a position, and how many of them were committed."""
        if depth > len(self.tried) or rank > len(self.tried[depth - 1]):
            return 0, 0
        return self.tried[depth - 1][rank - 1], self.accepted[depth - 1][rank - 1]

    def merge(self, other: Positions) -> None:
        """Take in all of another."""
        _add_table(self.tried, other.tried)
        _add_table(self.accepted, other.accepted)


@dataclass
class DraftOutcomes:
    """What became of the draft tokens of some runs.

    Attributes:
        reliability: of their confidences; not of tokens that were drawn.
        positions: of all.
    """

    reliability: Reliability = field(default_factory=Reliability)
    positions: Positions = field(default_factory=Positions)

    @classmethod
    def of(
        cls, trees: Iterable[VerifiedTree], request_rows: Container[int] | None = None
    ) -> DraftOutcomes | None:
        """Of the trees of some texts; None if none had a draft token.

        Args:
            request_rows: the prompts that count, by their places in the batch; all if None.
        """
        found, drawn = list[Children](), list[Children]()
        for each in trees:
            if each.tree.size > 1:
                rows = (
                    row
                    for row, request_row in enumerate(each.request_rows)
                    if each.new_tokens[row]
                    and (request_rows is None or request_row in request_rows)
                )
                (drawn if each.sampled else found).extend(children(each, row) for row in rows)
        if not found and not drawn:
            return None
        outcomes = cls()
        if found:
            outcomes.reliability.add(
                torch.cat([each.confidence for each in found]),
                torch.cat([each.outcome for each in found]),
            )
        both = [*found, *drawn]
        outcomes.positions.add(
            torch.cat([each.depth for each in both]),
            torch.cat([each.rank for each in both]),
            torch.cat([each.outcome for each in both]),
        )
        return outcomes

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> DraftOutcomes:
        """From what ``asdict`` gave."""
        return cls(Reliability(**saved["reliability"]), Positions(**saved["positions"]))

    @classmethod
    def summed(cls, several: Iterable[DraftOutcomes | None]) -> DraftOutcomes | None:
        """All of them together; None of none."""
        known = [each for each in several if each is not None]
        if not known:
            return None
        total = cls()
        for each in known:
            total.reliability.merge(each.reliability)
            total.positions.merge(each.positions)
        return total


def _add_table(ours: list[list[int]], theirs: Sequence[Sequence[int]]) -> None:
    """Add to ``ours``, which grows as far as ``theirs`` goes."""
    ours += [[] for _ in range(len(theirs) - len(ours))]
    for own, other in zip(ours, theirs, strict=False):
        own += [0] * (len(other) - len(own))
        for place, count in enumerate(other):
            own[place] += count
