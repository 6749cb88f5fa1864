"""What the tree policies that ship with specdec are to do, as one would write it from the papers.

Plain Python on lists: nothing of :mod:`specdec.drafting` is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """A draft token.

    Attributes:
        path: the draft tokens from the root's child to this one; empty for the root.
        value: the sum of the drafter's log q along the path.
    """

    path: tuple[int, ...]
    value: float


# All children that the draft distribution gives a node, the likeliest first.
Children = Callable[[Node], list[Node]]
# ``(options of the policy, levels, children) -> draft tokens``: the tree that is to be verified if
# the texts have room for ``levels`` levels; how deep the policy goes is up to its options.
Reference = Callable[[Any, int, Children], Iterable[Node]]
ROOT = Node((), 0.0)


def eagle2(options: Any, levels: int, children: Children) -> list[Node]:
    """Expand the best nodes of every level, then keep the best of all; ties to the earlier one."""
    frontier, grown = [ROOT], []
    for _ in range(min(levels, options.depth)):
        level = [child for node in frontier for child in children(node)[: options.top_k]]
        grown += level
        frontier = _best(level, options.top_k)
    return _best(grown, options.budget)


def _best(nodes: list[Node], count: int) -> list[Node]:
    return sorted(nodes, key=lambda node: -node.value)[:count]  # the sort is stable


def static_tree(options: Any, levels: int, children: Children) -> list[Node]:
    """Follow the ranks of every choice down from the root."""
    found = []
    for ranks in options.choices:
        node: Node | None = ROOT if len(ranks) <= levels else None
        for rank in ranks:
            below = children(node) if node else []
            node = below[rank] if rank < len(below) else None
        found += [node] if node else []
    return found


def kary_tree(options: Any, levels: int, children: Children) -> list[Node]:
    """The k likeliest children of every node."""

    def below(node: Node) -> list[Node]:
        if len(node.path) >= min(levels, options.depth):
            return []
        best = children(node)[: options.k]
        return [*best, *(deeper for child in best for deeper in below(child))]

    return below(ROOT)


def chain(options: Any, levels: int, children: Children) -> list[Node]:
    """The likeliest token, again and again."""
    path, deepest = [ROOT], min(levels, options.depth)
    while len(path) <= deepest and (below := children(path[-1])):
        path.append(below[0])
    return path[1:]


def auto(options: Any, levels: int, children: Children) -> list[Node]:
    """As EAGLE-2 with widths of their own; what it learns and measures is to be off."""
    frontier, grown = [ROOT], []
    for _ in range(min(levels, options.depth)):
        level = [child for node in frontier for child in children(node)[: options.children]]
        grown += level
        frontier = _best(level, options.width)
    return _best(grown, options.budget)


# By the policy's name.
REFERENCES: dict[str, Reference] = {
    "eagle2": eagle2,
    "static_tree": static_tree,
    "kary_tree": kary_tree,
    "chain": chain,
    "auto": auto,
}
