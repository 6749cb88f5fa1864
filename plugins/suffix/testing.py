"""What the suite of specdec.testing needs to know of the drafter ``suffix``."""

from __future__ import annotations

from specdec.testing.support import DrafterSupport

SUPPORT = [
    DrafterSupport("suffix", options={"costs": False}, adaptive=lambda options: options.costs)
]
