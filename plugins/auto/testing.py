"""What the suite of specdec.testing needs to know of the policy."""

from __future__ import annotations

from typing import Any

from specdec.testing.references import ROOT, Children, Node, best
from specdec.testing.support import Confidence, PolicySupport, guess_where_coupled

SMALL = {"depth": 3, "width": 2, "children": 2, "budget": 4}


def auto(options: Any, levels: int, children: Children) -> list[Node]:
    """As EAGLE-2 with widths of their own; what it learns and measures is to be off."""
    frontier, grown = [ROOT], []
    for _ in range(min(levels, options.depth)):
        level = [child for node in frontier for child in children(node)[: options.children]]
        grown += level
        frontier = best(level, options.width)
    return best(grown, options.budget)


def _adaptive(options: Any) -> bool:
    return bool(options.calibrated or options.size_by_cost)


def _confidence(options: Any) -> Confidence | None:
    """What is accepted is learned, unless that is off."""
    if options.calibrated:
        return None
    return guess_where_coupled(options)


SUPPORT = [
    PolicySupport("auto", small=SMALL, reference=auto, adaptive=_adaptive, confidence=_confidence)
]
