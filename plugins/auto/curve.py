"""Seconds by size, learned as they are measured."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from itertools import pairwise

# Measurements that a typical one is taken from.
_WINDOW = 11
# A size is settled when it has been measured so often: what it costs is believed first.
SETTLED = 3
# A size is forgotten after so many measurements of others, for each of its own: it may have been
# disturbed, and contexts grow.
_STALE = 50


class Typical:
    """The typical one of the last measurements: one that was disturbed does not count.

    Args:
        start: what is typical before any is known.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self.value = start

    def take(self, value: float) -> None:
        """One more measurement."""
        self._recent.append(value)
        self.value = statistics.median_low(self._recent)

    @property
    def count(self) -> int:
        """Measurements that it is taken from."""
        return len(self._recent)


class Curve:
    """Seconds by size.

    Between sizes that were measured seconds are linear. Outside them they are in proportion to a
    guess, which should be low: a size that is thought cheap is tried, and then it is known.

    Args:
        guess: what a size costs, in any unit.
    """

    def __init__(self, guess: Callable[[int], float]) -> None:
        self._guess, self._taken = guess, 0
        self._sizes: dict[int, Typical] = {}
        self._last: dict[int, int] = {}
        self._known: list[tuple[int, float]] = []

    def settled(self, size: int) -> bool:
        """Whether a size has been measured often enough."""
        return size in self._sizes and self._sizes[size].count >= SETTLED

    def take(self, size: int, seconds: float) -> None:
        """One more measurement."""
        self._taken += 1
        self._sizes.setdefault(size, Typical()).take(max(seconds, 1e-9))
        self._last[size] = self._taken
        for other, known in list(self._sizes.items()):
            if self._taken - self._last[other] > _STALE * known.count:
                del self._sizes[other]
        self._known = self._rising()

    def seconds(self, size: int) -> float:
        """What a size costs; 0 if none was ever measured."""
        if not self._known:
            return 0.0
        (least, low), (most, high) = self._known[0], self._known[-1]
        if size <= least:
            return low * self._guess(size) / self._guess(least)
        if size >= most:
            return high * self._guess(size) / self._guess(most)
        (n, low), (m, high) = next(s for s in pairwise(self._known) if size <= s[1][0])
        return low + (size - n) / (m - n) * (high - low)

    def _rising(self) -> list[tuple[int, float]]:
        """Sizes and seconds in order. More never costs less: where it seems to, the machine was
        disturbed, and what is settled is believed first."""
        known: dict[int, float] = {}
        for settled in (True, False):
            for size in sorted(self._sizes, reverse=True):
                if self.settled(size) is settled:
                    above = [seconds for other, seconds in known.items() if other > size]
                    below = [seconds for other, seconds in known.items() if other < size]
                    usual = min([*above, self._sizes[size].value])
                    known[size] = usual if settled else max([*below, usual])
        return sorted(known.items())
