"""Seconds of a verification by its size, as measured."""

from __future__ import annotations

import math
import statistics
from collections import deque
from itertools import pairwise

import torch

# Measurements of one quantity that its median is taken from: few enough to follow a text that
# grows, enough that stalls of the machine do not count.
WINDOW = 7
# Measurements of larger sizes than the least after which one no longer counts: a machine is slower
# at times, and what a size took then says nothing of what it takes beside those measured later.
FORGOTTEN = 150
# Tokens of a batch that cost a forward as much as its weights do, where nothing is known: memory
# bandwidth against arithmetic of usual processors.
BREAK_EVEN_TOKENS = 16
# The same on a GPU: an A100 does 312e12 operations in bfloat16 while it reads 1.6e12 bytes.
BREAK_EVEN_TOKENS_ON_GPU = 200


def break_even_tokens(device: torch.device) -> int:
    """That of a device where nothing is known."""
    return BREAK_EVEN_TOKENS_ON_GPU if device.type == "cuda" else BREAK_EVEN_TOKENS


def length_bucket(longest: int) -> int:
    """The length of texts, for what a forward over them costs: 0 up to some 360 tokens, then one
    more for each doubling."""
    return max(0, round(math.log2(longest / 256)))


class RunningMedian:
    """The lower median of the last measurements; 0 before the first.

    Attributes:
        recent: the measurements that count.
        known: whether there were ever enough to rely on.
    """

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self._times: deque[int] = deque(maxlen=WINDOW)
        self.value, self.known = 0.0, False

    def take(self, value: float, time: int = 0) -> None:
        """One more measurement, at a time that never falls."""
        self.recent.append(value)
        self._times.append(time)
        self.known |= len(self.recent) >= WINDOW // 2
        self.value = statistics.median_low(self.recent)

    def forget(self, before: int) -> bool:
        """Drop the measurements from before a time, but for the last ones that a median needs.

        Returns:
            Whether that is from before it too.
        """
        while len(self._times) > WINDOW // 2 and self._times[0] < before:
            self._times.popleft()
            self.recent.popleft()
        self.value = statistics.median_low(self.recent)
        return self._times[-1] < before


class SecondsBySize:
    """Seconds by size, never falling: isotonic regression of the measurements by absolute error.

    Linear between measured sizes, in proportion to a guess outside them. A size that is measured
    for the first time starts from what was predicted, so one disturbed measurement does not shut it
    out. Neither does a while in which the machine was slow, as measurements are forgotten after
    :data:`FORGOTTEN` of other sizes than the least; of that the last ones always count.

    Args:
        rows: batch size, for the guess.
        break_even: tokens that cost as much as loading the weights, for the guess.
    """

    def __init__(self, rows: int, break_even: int = BREAK_EVEN_TOKENS) -> None:
        self.rows, self._break_even = rows, break_even
        self.sizes: dict[int, RunningMedian] = {}
        self._time = 0
        self._points: list[tuple[int, float]] | None = []

    def take(self, size: int, seconds: float) -> None:
        """One more measurement."""
        seconds = max(seconds, 1e-9)
        if size not in self.sizes:
            low = min(seconds, self.seconds(size) or seconds)
            self.sizes[size] = RunningMedian()
            self.sizes[size].take(low, self._time)
        self.sizes[size].take(seconds, self._time)
        least = min(self.sizes)
        self._time += size > least
        for other, measured in [*self.sizes.items()]:
            if measured.forget(self._time - FORGOTTEN) and other != least:
                del self.sizes[other]
        self._points = None

    def seconds(self, size: int) -> float:
        """What a size costs; 0 if none was ever measured."""
        points = self._points = self._points or self._fit()
        if not points:
            return 0.0
        (least, low), (most, high) = points[0], points[-1]
        if size <= least:
            return low * self.guess(size) / self.guess(least)
        if size >= most:
            return high * self.guess(size) / self.guess(most)
        (n, low), (m, high) = next(pair for pair in pairwise(points) if size <= pair[1][0])
        return low + (size - n) / (m - n) * (high - low)

    def guess(self, size: int) -> float:
        """What a size costs where nothing is known, in an arbitrary unit."""
        return 1 + self.rows * size / self._break_even

    def _fit(self) -> list[tuple[int, float]]:
        """Pool neighbours whose medians fall, until none do."""
        blocks: list[tuple[list[int], list[float], float]] = []
        for size in sorted(self.sizes):
            block = ([size], list(self.sizes[size].recent), self.sizes[size].value)
            while blocks and blocks[-1][2] > block[2]:
                sizes, measured, _ = blocks.pop()
                sizes, measured = sizes + block[0], measured + block[1]
                block = (sizes, measured, statistics.median_low(measured))
            blocks.append(block)
        return [(size, seconds) for sizes, _, seconds in blocks for size in sizes]
