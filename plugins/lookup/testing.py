"""What the suite of specdec.testing needs to know of the drafter ``lookup``."""

from __future__ import annotations

from specdec.testing.support import DrafterSupport

SUPPORT = [
    DrafterSupport("lookup", options={"costs": False}, adaptive=lambda options: options.costs)
]
