"""Prefetching: the next result is made in a thread while the last one is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map(work, items)``, with one more result being made while one is in use."""
    with ThreadPoolExecutor(1) as thread:
        waiting = iter(items)
        first = next(waiting, None)
        pending = None if first is None else thread.submit(work, first)
        while pending is not None:
            result = pending.result()
            following = next(waiting, None)
            pending = None if following is None else thread.submit(work, following)
            yield result
