"""What two texts begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def common_prefix(some: Sequence[Any], others: Sequence[Any]) -> int:
    """How many leading tokens, or characters, they have in common."""
    count = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        count += 1
    return count
