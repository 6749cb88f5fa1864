"""Test support of the policy ``eagle2``."""

from __future__ import annotations

from typing import Any

from specdec.testing.references import ROOT, Children, Node, best
from specdec.testing.support import PolicySupport


def eagle2(options: Any, levels: int, children: Children) -> list[Node]:
    """Expand the best nodes of every level, then keep the best of all; ties to the earlier one."""
    frontier, grown = [ROOT], []
    for _ in range(min(levels, options.depth)):
        level = [child for node in frontier for child in children(node)[: options.top_k]]
        grown += level
        frontier = best(level, options.top_k)
    return best(grown, options.budget)


SUPPORT = [
    PolicySupport("eagle2", small={"depth": 3, "top_k": 2, "budget": 4}, reference=eagle2),
]
