"""What forwards cost on this machine, and what drafting has brought so far."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from specdec.target import HFTarget

Times = list[tuple[int, float]]

# Target forwards are timed at these numbers of tokens a row; between them cost is linear.
_TIMED = (1, 5, 9, 17, 33, 61)
# Measurements that a typical cost is taken from.
_WINDOW = 15
# Tokens and seconds of drafting fade by this factor a step.
_FADING = 0.95
# The first steps with drafts warm up; they are not judged.
_SETTLING = 2
# A step whose drafts were not worth verifying counts for so many of these:
_EMPTY = 3
# Steps with drafts before it is judged whether they pay: at first, and after a pause.
_FIRST_PROBE, _PROBE = 8, 3
_FIRST_PAUSE, _LONGEST_PAUSE = 16, 512
# Committed tokens a row beyond which forwards are not timed; their load is learned.
_LONGEST_CONTEXT = 2048
# After so many steps of one level a second one is grown in any case.
_STALE = 16
# What the children of an accepted node are worth together.
_CHILD = 0.8
# Seconds after which a size has been timed often enough, and after which no larger one is timed.
_ENOUGH, _SLOW = 0.08, 0.25


def time_forwards(target: HFTarget, rows: int, context: int, largest: int) -> Times:
    """Seconds of a target forward at several numbers of tokens.

    Args:
        rows: batch size.
        context: committed tokens a row.
        largest: the most tokens a row of interest; the first size past it is the last one timed.

    Returns:
        Pairs of tokens, rows together, and seconds, ascending: the best of several forwards each,
        of one where it takes long. Nothing where there is no memory for it.
    """
    context = min(context, _LONGEST_CONTEXT, target.context_limit - largest - 1)
    if context < 1:
        return []
    try:
        return _time_forwards(target, rows, context, largest)
    except torch.OutOfMemoryError:
        return []


def _time_forwards(target: HFTarget, rows: int, context: int, largest: int) -> Times:
    device = target.device
    sizes = [*(n for n in _TIMED if n < largest), largest]
    cache = target.new_cache(rows, context + largest)
    cache.truncate(torch.full((rows,), context, device=device), context)
    times: Times = []
    for n in sizes:
        order = torch.arange(n, device=device)
        tokens = torch.zeros(rows, n, dtype=torch.int64, device=device)
        positions = (context + order).expand(rows, -1)
        among = (order <= order[:, None]).expand(rows, -1, -1)
        best, spent = float("inf"), 0.0
        while spent < _ENOUGH:
            started = time.perf_counter()
            hidden = target.forward(tokens, positions, among, cache)
            target.logits(hidden.last)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken = time.perf_counter() - started
            best, spent = min(best, taken), spent + taken
        # More tokens never cost less: where they seem to, the machine was disturbed.
        times = [(m, min(before, best)) for m, before in times]
        times.append((rows * n, best))
        if best > _SLOW and len(times) > 1:
            break
    return times


def interpolated(times: Times, tokens: int) -> float:
    """Seconds at ``tokens``: linear between what was timed and past it, constant before it."""
    if len(times) == 1 or tokens <= times[0][0]:
        return times[0][1]
    spans = list(pairwise(times))
    (n, low), (m, high) = next((span for span in spans if tokens <= span[1][0]), spans[-1])
    return low + (tokens - n) / (m - n) * (high - low)


class Typical:
    """The typical one of the last measurements: one that was disturbed does not count.

    Args:
        start: what is typical before any is known.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._recent: deque[float] = deque(maxlen=_WINDOW)

    def take(self, value: float) -> None:
        """One more measurement."""
        self._recent.append(value)

    @property
    def value(self) -> float:
        """The lower median."""
        return statistics.median_low(self._recent) if self._recent else self._start


class Economy:
    """What steps cost and bring, with and without drafts, for one kind of generation.

    Costs are typical ones, so that a machine that stutters is not mistaken for drafts that do not
    pay; what drafting has brought is counted in tokens over typical seconds. Not in it: the
    drafter's reading of the prompt and of what a pause left unread.

    Args:
        times: of target forwards, as :func:`time_forwards` gives them, at least one.

    Attributes:
        load: seconds of a verification over what was timed: context and machine change.
        first: seconds of the first draft level, for which the drafter reads the committed tokens.
        level: seconds of any further one.
        rest: seconds of accepting and committing a tree.
        plain_rest: the same for a root alone.
        paused: steps of plain decoding still to come before drafting is tried again.
    """

    def __init__(self, times: Times) -> None:
        self.times = times
        self.load, self.rest, self.plain_rest = Typical(1.0), Typical(0.0), Typical(0.0)
        self.first, self.level = Typical(0.0), Typical(0.0)
        self.paused = 0
        self._pause, self._probe, self._settling = _FIRST_PAUSE, _FIRST_PROBE, _SETTLING
        self._shallow = 0
        self._tokens = self._seconds = 0.0

    def resume(self) -> None:
        """A new text begins: what another text taught about drafting counts little for it."""
        self.paused = min(self.paused, 2 * _FIRST_PAUSE)
        self._pause = max(_FIRST_PAUSE, self._pause // 2)

    def verify(self, tokens: int) -> float:
        """Seconds of a verification of ``tokens``, rows together."""
        return self.load.value * interpolated(self.times, tokens)

    def plain_rate(self, rows: int) -> float:
        """Tokens a second of plain decoding."""
        return rows / (self.verify(rows) + self.plain_rest.value)

    def rate(self, rows: int) -> float:
        """Tokens a second that decoding brings; half more than without drafts until it is known."""
        plain = self.plain_rate(rows)
        return max(self._tokens / self._seconds, plain) if self._seconds else 1.5 * plain

    def level_pays(self, rows: int, reach: float) -> bool:
        """Whether a further draft level brings more than it costs.

        Now and then one is grown in any case, so that a price once measured wrongly is measured
        again.

        Args:
            reach: how many of the nodes to expand are expected to be accepted.
        """
        return self._shallow >= _STALE or _CHILD * reach > self.rate(rows) * self.level.value

    def best_budget(self, rows: int, gains: Mapping[int, float]) -> int:
        """How many draft tokens a row to verify; 0 for none.

        Args:
            gains: for each choice how many of its draft tokens are expected to be accepted.
        """
        rate = self.rate(rows)
        worth = {0: -rate * (self.verify(rows) + self.plain_rest.value)}
        for m, gain in gains.items():
            worth[m] = gain - rate * (self.verify(rows * (m + 1)) + self.rest.value)
        return max(worth, key=lambda m: worth[m])

    def took(self, rows: int, size: int, verify: float, rest: float) -> None:
        """Take in the seconds of a verification of ``size`` tokens a row and of what follows."""
        self.load.take(verify / interpolated(self.times, rows * size))
        (self.plain_rest if size == 1 else self.rest).take(rest)

    def drafted(self, rows: int, tokens: int, size: int, levels: Sequence[float]) -> None:
        """Take in a step with drafts: tokens, the size of the tree, seconds of each level."""
        self._settling -= 1
        if self._settling >= 0:
            return
        self.first.take(levels[0])
        self._shallow += 1
        if further := levels[1:]:
            self.level.take(statistics.median_low(further))
            self._shallow = 0
        spent = self.first.value + self.level.value * len(further) + self.verify(rows * size)
        spent += (self.plain_rest if size == 1 else self.rest).value
        self._tokens = _FADING * self._tokens + tokens
        self._seconds = _FADING * self._seconds + spent
        self._probe -= _EMPTY if size == 1 else 1
        if self._probe > 0:
            return
        if self._tokens / self._seconds < self.plain_rate(rows):
            self.paused, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
            self._tokens = self._seconds = 0.0
            self._probe = _PROBE
        else:
            self._pause = _FIRST_PAUSE
