"""Temperatures as text: short, and never the same for two of them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from specdec.bench.temperature_names import at_temperature, written

temperatures = st.floats(0, 1e6, allow_nan=False)


@given(temperature=temperatures)
def test_a_written_temperature_is_read_back(temperature: float) -> None:
    assert float(written(temperature)) == temperature


@given(one=temperatures, other=temperatures | st.floats(0.1234567, 0.1234568))
def test_two_temperatures_have_two_files(one: float, other: float) -> None:
    files = {at_temperature(Path("a/runs.jsonl"), each) for each in (one, other)}
    assert len(files) == len({one, other})


def test_the_usual_ones_are_short() -> None:
    names = [at_temperature(Path("runs.jsonl"), each).name for each in (0, 0.7, 1)]
    assert names == ["runs-t0.jsonl", "runs-t0.7.jsonl", "runs-t1.jsonl"]
