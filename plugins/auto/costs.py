"""What forwards cost on this machine, and what drafting has brought so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from specdec.target import HFTarget

# Target forwards are timed at these numbers of tokens a row; between them cost is linear.
_TIMED = (1, 5, 9, 17, 33, 61)
# Averages of costs fade by the first factor a step, those of tokens and seconds by the second.
_FADING, _SLOW_FADING = 0.9, 0.95
# The first steps only show what a level costs.
_SETTLING = 2
# Steps with drafts before it is judged whether they pay: at first, and after a pause.
_FIRST_PROBE, _PROBE = 8, 4
_FIRST_PAUSE, _LONGEST_PAUSE = 16, 512
# A size that takes longer than this is timed once, and no larger one is.
_SLOW = 0.25


def time_forwards(
    target: HFTarget, rows: int, context: int, largest: int
) -> list[tuple[int, float]]:
    """Seconds of a target forward at several numbers of tokens a row.

    Args:
        rows: batch size.
        context: committed tokens a row.
        largest: the most tokens of interest; the first size past it is the last one timed.

    Returns:
        Pairs of tokens a row and seconds, ascending: the better of two forwards each, until they
        take long.
    """
    device = target.device
    smaller = [n for n in _TIMED if n < largest]
    sizes = [*smaller, min([n for n in _TIMED if n >= largest], default=largest)]
    context = min(context, target.context_limit - sizes[-1])
    cache = target.new_cache(rows, context + sizes[-1])
    cache.truncate(torch.full((rows,), context, device=device), context)
    times = []
    for n in sizes:
        order = torch.arange(n, device=device)
        tokens = torch.zeros(rows, n, dtype=torch.int64, device=device)
        positions = (context + order).expand(rows, -1)
        among = (order <= order[:, None]).expand(rows, -1, -1)
        best = float("inf")
        for _ in range(2):
            started = time.perf_counter()
            hidden = target.forward(tokens, positions, among, cache)
            target.logits(hidden.last)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - started)
            if best > _SLOW:
                break
        times.append((n, best))
        if best > _SLOW and len(times) > 1:
            break
    return times


def interpolated(times: Sequence[tuple[int, float]], tokens: int) -> float:
    """Seconds at ``tokens``, linear between what was timed and past it."""
    if len(times) == 1:
        return times[0][1]
    spans = list(pairwise(times))
    (n, low), (m, high) = next((span for span in spans if tokens <= span[1][0]), spans[-1])
    return low + (tokens - n) / (m - n) * (high - low)


@dataclass
class Economy:
    """Costs and gains of one batch size: what a step with and without drafts is worth.

    Attributes:
        times: of target forwards, as :func:`time_forwards` gives them.
        load: what a verification takes over what was timed: the context and the machine change.
        level: seconds of a draft level.
        paused: steps of plain decoding still to come before drafting is tried again.
    """

    times: list[tuple[int, float]]
    load: float = 1.0
    level: float = 0.0
    paused: int = 0
    _plain: float = 0.0
    _tokens: float = 0.0
    _seconds: float = 0.0
    _settling: int = _SETTLING
    _probe: int = _FIRST_PROBE
    _pause: int = _FIRST_PAUSE

    def resume(self) -> None:
        """A new text begins: what another text taught about drafting counts little for it."""
        self.paused, self._pause = min(self.paused, _FIRST_PAUSE), _FIRST_PAUSE

    def verify(self, tokens: int) -> float:
        """Seconds of a verification of ``tokens`` a row."""
        return self.load * interpolated(self.times, tokens)

    def rate(self, rows: int) -> float:
        """Tokens a second that drafting brings; before any is known half more than without."""
        if not self._seconds:
            return 1.5 * self.plain_rate(rows)
        return max(self._tokens / self._seconds, self.plain_rate(rows))

    def plain_rate(self, rows: int) -> float:
        """Tokens a second of plain decoding."""
        return rows / (self._plain or self.verify(1))

    def drafted(
        self,
        rows: int,
        tokens: int,
        *,
        levels: int,
        size: int,
        draft: float,
        verify: float,
        rest: float,
    ) -> None:
        """Take in a step with drafts: its tokens, its sizes and its seconds by phase."""
        new_load = self.load * verify / self.verify(size)
        self.load += (1 - _FADING) * (min(max(new_load, self.load / 2), self.load * 2) - self.load)
        level = draft / levels
        self.level = level if not self.level else self.level + (1 - _FADING) * (level - self.level)
        self._settling -= 1
        if self._settling >= 0:
            return
        self._tokens = _SLOW_FADING * self._tokens + tokens
        self._seconds = _SLOW_FADING * self._seconds + draft + verify + rest
        self._probe -= 1
        if self._probe > 0:
            return
        if self._tokens / self._seconds < self.plain_rate(rows):
            self.paused, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
            self._tokens = self._seconds = 0.0
            self._probe = _PROBE
        else:
            self._pause = _FIRST_PAUSE

    def skipped(self, seconds: float) -> None:
        """Take in a step of plain decoding."""
        self.paused -= 1
        self._plain = (
            seconds if not self._plain else self._plain + (1 - _FADING) * (seconds - self._plain)
        )
