"""A clock for strategies that measure themselves: what they measure is the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

# Milliseconds from one look at the clock to the next, again and again. Mostly alike, so that
# drafting pays, with a long one at times, so that at others it does not.
_TICKS = (1, 2, 1, 3, 1, 1, 30, 2, 1, 4, 1, 60, 1)


@contextmanager
def fake_clock() -> Iterator[None]:
    """Within, ``time.perf_counter`` moves by a tick whenever it is read, and not otherwise.

    A strategy whose drafts depend on what they cost then drafts the same whenever it is run.
    """
    reads, now = 0, 0.0

    def read() -> float:
        nonlocal reads, now
        now += _TICKS[reads % len(_TICKS)] / 1000
        reads += 1
        return now

    with mock.patch("time.perf_counter", read):
        yield
