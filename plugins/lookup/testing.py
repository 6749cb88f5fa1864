"""What the suite of specdec.testing needs to know of the drafter ``lookup``."""

from __future__ import annotations

from specdec.testing.support import DrafterSupport

SUPPORT = [
    DrafterSupport(
        "lookup", options={"size_by_cost": False}, adaptive=lambda options: options.size_by_cost
    )
]
