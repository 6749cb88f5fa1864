"""What a reference of a tree policy is written with: plain Python, as one would write it from a
paper.

References use lists of nodes and nothing of :mod:`specdec.drafting`.
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
# the text has room for ``levels`` levels; how deep the policy goes is up to its options.
Reference = Callable[[Any, int, Children], Iterable[Node]]
ROOT = Node((), 0.0)


def best(nodes: Iterable[Node], count: int) -> list[Node]:
    """The nodes of highest value; ties to the earlier one."""
    return sorted(nodes, key=lambda node: -node.value)[:count]  # the sort is stable
