"""Batches of rows of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def neighbours(
    items: Iterable[_Item], length: Callable[[_Item], int], *, most: int, max_batch_tokens: int
) -> Iterator[list[_Item]]:
    """Items that follow each other, as many as the bounds allow, but at least one.

    Args:
        length: tokens of an item at most, its answer included.
        most: items of a batch.
        max_batch_tokens: tokens of a batch whose items are all as long as its longest.
    """
    group: list[_Item] = []
    longest = 0
    for item in items:
        longest = max(longest, length(item))
        if group and (len(group) == most or (len(group) + 1) * longest > max_batch_tokens):
            yield group
            group, longest = [], length(item)
        group.append(item)
    if group:
        yield group
