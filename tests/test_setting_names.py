"""Temperatures and batch sizes as text: short, and never the same for two of them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from specdec.bench.setting_names import at_settings, temperature_text

temperatures = st.floats(0, 1e6, allow_nan=False)


@given(temperature=temperatures)
def test_a_written_temperature_is_read_back(temperature: float) -> None:
    assert float(temperature_text(temperature)) == temperature


settings = st.tuples(st.sampled_from([0.0, 0.7, 1.0]), st.integers(1, 4))


@given(one=settings, other=settings)
def test_two_settings_have_two_files(one: tuple[float, int], other: tuple[float, int]) -> None:
    files = {at_settings(Path("a/runs.jsonl"), *each) for each in (one, other)}
    assert len(files) == len({one, other})


@given(one=temperatures, other=st.floats(0.1234567, 0.1234568))
def test_temperatures_that_are_close_have_two_files(one: float, other: float) -> None:
    files = {at_settings(Path("a/runs.jsonl"), each) for each in (one, other, 0.1234567)}
    assert len(files) == len({one, other, 0.1234567})


def test_the_usual_ones_are_short() -> None:
    names = [at_settings(Path("runs.jsonl"), each).name for each in (0, 0.7, 1)]
    assert names == ["runs-t0.jsonl", "runs-t0.7.jsonl", "runs-t1.jsonl"]
    assert at_settings(Path("runs.jsonl"), 0, 4).name == "runs-t0-b4.jsonl"
