"""Test support of the policies ``static_tree``, ``kary_tree`` and ``chain``."""

from __future__ import annotations

from typing import Any

from specdec.testing.references import ROOT, Children, Node
from specdec.testing.support import PolicySupport, guess_where_coupled


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
        first = children(node)[: options.k]
        return [*first, *(deeper for child in first for deeper in below(child))]

    return below(ROOT)


def chain(options: Any, levels: int, children: Children) -> list[Node]:
    """The likeliest token, again and again."""
    path, deepest = [ROOT], min(levels, options.depth)
    while len(path) <= deepest and (below := children(path[-1])):
        path.append(below[0])
    return path[1:]


CHOICES = ((0,), (1,), (0, 0), (0, 1), (1, 0), (0, 1, 0))

SUPPORT = [
    PolicySupport(
        "static_tree",
        small={"choices": CHOICES},
        reference=static_tree,
        confidence=guess_where_coupled,
    ),
    PolicySupport(
        "kary_tree", small={"k": 2, "depth": 2}, reference=kary_tree, confidence=guess_where_coupled
    ),
    PolicySupport("chain", small={"depth": 3}, reference=chain, confidence=guess_where_coupled),
]
