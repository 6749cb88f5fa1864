"""The bar on the terminal: what is done, and the time that is left."""

from __future__ import annotations

import io
import re

from rich.console import Console

from specdec.progress import RichReporter


class Clock:
    """A time that goes on when it is told to, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(done: int, of: int, seconds: float) -> str:
    """The last line of a bar: ``done`` rows of ``of`` took so long, each as long as the others."""
    clock, written = Clock(), io.StringIO()
    console = Console(file=written, width=120, force_terminal=True, get_time=clock)
    with RichReporter(console).stage("rows", of) as stage:
        for _ in range(done):
            clock.now += seconds / done
            stage.advance(1, "9 tokens/s")
    return re.sub(
        r"\x1b\[[\d;?]*[A-Za-z]", "", written.getvalue().replace("\r", "\n")
    ).splitlines()[-1]


def test_the_time_left_is_that_of_the_rows_left_at_the_speed_so_far() -> None:
    for done, of, seconds, left in (
        (5, 10, 10, "0:00:10"),
        (5, 20, 10, "0:00:30"),
        (9, 10, 9, "0:00:01"),
        (2, 4, 90, "0:01:30"),  # further apart than rich looks back by itself
    ):
        line = shown(done, of, seconds)
        gone = f"0:{seconds // 60:02d}:{seconds % 60:02d}"
        assert f"{100 * done // of}%" in line and f"{gone} {left}" in line, line
        assert line.rstrip().endswith("9 tokens/s")


def test_no_time_is_left_at_the_end_and_none_is_said_before_the_first_row() -> None:
    assert "0:00:08 0:00:00" in shown(8, 8, 8)
    assert "-:--:--" in shown(0, 8, 0)
