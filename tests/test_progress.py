"""What a long run shows of itself: what is done, and the time that is left."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from specdec.cli.progress_bar import progress_bar
from specdec.progress import RichReporter


class Clock:
    """A time that goes on when it is told to, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(done: int, of: int, seconds: float, *, before: int = 0) -> str:
    """The last line of a bar: ``done`` rows of ``of`` took so long, each as long as the others,
    after some that were done before."""
    clock, written = Clock(), io.StringIO()
    console = Console(file=written, width=120, force_terminal=True, get_time=clock)
    with RichReporter(console).stage("rows", of) as stage:
        stage.skip_to(before)
        for _ in range(done):
            clock.now += seconds / done
            stage.advance(1, "9 tokens/s")
    return re.sub(
        r"\x1b\[[\d;?]*[A-Za-z]", "", written.getvalue().replace("\r", "\n")
    ).splitlines()[-1]


def lines(waits: list[float], *, of: int) -> list[str]:
    """What is written off a terminal by rows that take so long each."""
    clock, written = Clock(), io.StringIO()
    console = Console(file=written, width=40, get_time=clock)
    with RichReporter(console).stage("rows", of) as stage:
        for wait in waits:
            clock.now += wait
            stage.advance(1, "9 tokens/s")
    return written.getvalue().splitlines()


def test_the_time_left_is_that_of_the_rows_left_at_the_speed_so_far() -> None:
    for done, of, seconds, left in (
        (5, 10, 10, "0:00:10"),
        (5, 20, 10, "0:00:30"),
        (9, 10, 9, "0:00:01"),
        (2, 4, 90, "0:01:30"),  # further apart than rich looks back by itself
    ):
        line = shown(done, of, seconds)
        gone = f"0:{seconds // 60:02d}:{seconds % 60:02d}"
        assert f"{done} of {of} ({100 * done // of}%) {gone} {left}" in line, line
        assert line.rstrip().endswith("9 tokens/s")


def test_the_time_left_does_not_take_what_was_done_before_for_work_of_this_run() -> None:
    assert "92 of 100 (92%) 0:00:20 0:01:20" in shown(2, 100, 20, before=90)


def test_no_time_is_left_at_the_end_and_none_is_said_before_the_first_row() -> None:
    assert "0:00:08 0:00:00" in shown(8, 8, 8)
    assert "-:--:--" in shown(0, 8, 0)
    assert "-:--:--" in shown(0, 8, 0, before=4)


def test_off_a_terminal_a_line_at_most_a_minute_and_one_at_the_end_say_how_it_goes() -> None:
    assert lines([20.0] * 8, of=8) == [
        "rows 3 of 8 (37%), 0:01:00 so far, 0:01:40 left, 9 tokens/s",
        "rows 6 of 8 (75%), 0:02:00 so far, 0:00:40 left, 9 tokens/s",
        "rows 8 of 8 (100%), in 0:02:40, 9 tokens/s",
    ]
    assert lines([20.0], of=4) == ["rows 1 of 4 (25%), in 0:00:20, 9 tokens/s"]
    assert lines([], of=4) == []  # it ended before anything was done


def test_a_share_is_told_in_per_cent_alone() -> None:
    written = io.StringIO()
    with RichReporter(Console(file=written)).stage("training", 1.0) as stage:
        stage.at(0.25, "loss 1.0")
    assert written.getvalue() == "training 25%, in 0:00:00, loss 1.0\n"


def test_runs_are_told_with_what_runs_and_without_those_of_an_earlier_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, written = Clock(), io.StringIO()
    console = Console(file=written, get_time=clock)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    with progress_bar("runs") as move:
        move(0, 200, "")  # the first report, all of whose runs an earlier run did
        move(100, 200, "")
        move(150, 200, "run 1: eagle2")  # the second, half of them
        clock.now += 60
        move(151, 200, "run 1: [auto]")
        clock.now += 60
        move(200, 200, "")
    assert written.getvalue().splitlines() == [
        "runs 151 of 200 (75%), 0:01:00 so far, 0:49:00 left, run 1: [auto]",
        "runs 200 of 200 (100%), 0:02:00 so far, 0:00:00 left",
        "runs 200 of 200 (100%), in 0:02:00",
    ]
