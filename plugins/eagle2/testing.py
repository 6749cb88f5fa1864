"""Test support of the policy ``eagle2``."""

from __future__ import annotations

from typing import Any

from specdec.testing.references import ROOT, Children, Node, best
from specdec.testing.support import PolicySupport, guess_where_coupled


def eagle2(options: Any, levels: int, children: Children) -> list[Node]:
    """Expand the best nodes of every level, then keep the best of all; ties to the earlier one."""
    frontier, grown, expanded = [ROOT], [], []
    for _ in range(min(levels, options.depth)):
        offered = [(node, child) for node in frontier for child in children(node)[: options.top_k]]
        level = [child for _, child in offered]
        grown += level
        frontier = best(level, options.top_k)
        if options.score == "confidence":
            # The confidence of a child, out of its value: rounded, so that ties stay ties.
            surest = sorted(offered, key=lambda pair: -round(pair[1].value - pair[0].value, 10))
            frontier = [child for _, child in surest[: options.top_k]]
        expanded += frontier
    return best(grown, options.budget) if options.rerank else expanded[: options.budget]


SUPPORT = [
    PolicySupport(
        "eagle2",
        small={"depth": 3, "top_k": 2, "budget": 4},
        reference=eagle2,
        confidence=guess_where_coupled,
    ),
]
