"""The learning rate rises, stays and falls, by steps or by minutes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from specdec.training.schedule import Schedule


@given(st.integers(1, 500), st.floats(0, 0.4), st.floats(0, 0.5))
def test_by_steps_the_rate_rises_stays_and_falls(steps: int, warmup: float, decay: float) -> None:
    schedule = Schedule(steps, None, warmup, decay)
    rates = [schedule.rate(step, 1e9) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert [schedule.progress(step, 1e9) for step in (0, steps, steps + 1)] == [0, 1, 1]


@given(st.floats(0.1, 100), st.floats(0, 1))
def test_by_minutes_it_is_the_time_that_counts(minutes: float, share: float) -> None:
    schedule = Schedule(None, minutes, 0.1, 0.5)
    seconds = 60 * minutes * share
    assert abs(schedule.progress(10**6, seconds) - share) < 1e-9
    assert schedule.rate(3, seconds) == schedule.rate(10**6, seconds)
    assert schedule.rate(0, 60 * minutes * 0.3) == 1
    assert schedule.rate(0, 60 * minutes) < 1e-3
