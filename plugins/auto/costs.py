"""Cost model: seconds of the parts of a step at one batch size and about one length."""

from __future__ import annotations

import copy
import math
import statistics
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

# Measurements of one quantity that its median is taken from: few enough to follow a text that
# grows, enough that stalls of the machine do not count.
WINDOW = 7
# Tokens of a batch that cost a forward as much as its weights do, where nothing is known: memory
# bandwidth against arithmetic of usual processors.
FREE = 16


def doublings(longest: int) -> int:
    """The length of texts, for what a forward over them costs: 0 up to some 360 tokens, then one
    more for each doubling."""
    return max(0, round(math.log2(longest / 256)))


class RunningMedian:
    """The lower median of the last measurements; 0 before the first."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.value = 0.0

    def take(self, value: float) -> None:
        """One more measurement."""
        self.recent.append(value)
        self.value = statistics.median_low(self.recent)

    @property
    def known(self) -> bool:
        """Whether there are enough measurements to rely on."""
        return len(self.recent) >= WINDOW // 2


class Curve:
    """Seconds by size, never falling: isotonic regression of the measurements by absolute error.

    Linear between measured sizes, in proportion to a guess outside them. A size that is measured
    for the first time starts from what was predicted, so one disturbed measurement does not shut it
    out.

    Args:
        rows: batch size, for the guess.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.sizes: dict[int, RunningMedian] = {}
        self._points: list[tuple[int, float]] | None = []

    def take(self, size: int, seconds: float) -> None:
        """One more measurement."""
        seconds = max(seconds, 1e-9)
        if size not in self.sizes:
            low = min(seconds, self.seconds(size) or seconds)
            self.sizes[size] = RunningMedian()
            self.sizes[size].take(low)
        self.sizes[size].take(seconds)
        self._points = None

    def seconds(self, size: int) -> float:
        """What a size costs; 0 if none was ever measured."""
        points = self._points = self._points or self._fit()
        if not points:
            return 0.0
        (least, low), (most, high) = points[0], points[-1]
        if size <= least:
            return low * self._guess(size) / self._guess(least)
        if size >= most:
            return high * self._guess(size) / self._guess(most)
        (n, low), (m, high) = next(pair for pair in pairwise(points) if size <= pair[1][0])
        return low + (size - n) / (m - n) * (high - low)

    def _guess(self, size: int) -> float:
        return 1 + self.rows * size / FREE

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


class Costs:
    """Seconds of a step: everything but drafting by the nodes of the tree, and drafting.

    Args:
        rows: batch size.

    Attributes:
        steps: verification and all that surrounds it, by nodes, the root included.
        first: the first draft level, for which the drafter reads a few committed tokens.
        level: any further one.
        reading: what each further unread token of a row adds to the first.
        nodes: of the last step.
        since_plain: steps since one of plain decoding was measured.
        since_level: steps with drafts since a further level was measured.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.steps = Curve(rows)
        self.first, self.level, self.reading = RunningMedian(), RunningMedian(), RunningMedian()
        self.since_plain = self.since_level = 0
        self.nodes, self._drafted = 0, False

    def for_rows(self, rows: int) -> Costs:
        """A copy for a batch of another size, or for texts of another length."""
        made = copy.deepcopy(self)
        made.rows = made.steps.rows = rows
        return made

    @property
    def plain_known(self) -> bool:
        """Whether plain decoding has been measured often enough."""
        return 1 in self.steps.sizes and self.steps.sizes[1].known

    @property
    def drafting_known(self) -> bool:
        """Whether draft levels have been measured often enough."""
        return self.level.known or self.first.known

    def step(self, nodes: int) -> float:
        """A step that verifies ``nodes`` nodes, without drafting."""
        return self.steps.seconds(nodes)

    def draft(self, levels: float) -> float:
        """Growing ``levels`` levels, with few tokens to read; half of what little is known says, so
        that it is measured again unless it is far too much."""
        if levels == 0:
            return 0.0
        seconds = (self.first.value or self.level.value) + self.level.value * (levels - 1)
        return seconds if self.drafting_known else seconds / 2

    def read(self, unread: int) -> float:
        """What the drafter's reading of ``unread`` tokens a row adds to that."""
        return self.reading.value * unread if unread > 4 * FREE else 0.0

    def take(self, nodes: int, seconds: float, levels: Sequence[float], unread: int) -> None:
        """Take in a step.

        Args:
            nodes: of the tree that was verified.
            seconds: drafting left out.
            levels: seconds of each level, for the first of which ``unread`` tokens were read.
        """
        before, self.nodes = self.nodes, nodes
        self.since_plain += 1
        # What lies in the processor's cache depends on the step before: a plain step counts only
        # after another one, a first level only after a step with drafts.
        drafted, self._drafted = self._drafted, bool(levels)
        if nodes > 1 or (before == 1 and not levels):
            self.steps.take(nodes, seconds)
            self.since_plain = 0 if nodes == 1 else self.since_plain
        if not levels:
            return
        self.since_level += 1
        if further := levels[1:]:
            self.level.take(statistics.median_low(further))
            self.since_level = 0
        if unread <= 4 * FREE:
            if drafted:
                self.first.take(levels[0])
        elif usual := self.first.value or self.level.value:
            self.reading.take(max(0.0, levels[0] - usual) / unread)
