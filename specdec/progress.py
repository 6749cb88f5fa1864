"""What a run tells while it works: nothing, or bars and lines on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from specdec.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


# The time left is that at the speed over so long: one step of slow work may take minutes, and some
# steps take several times as long as others.
SPEED_SECONDS = 3600.0


class Reporter:
    """Is told of stages, amounts and figures; this one keeps them to itself."""

    def note(self, text: str) -> None:
        """A line that stays: an estimate, what is resumed, an evaluation."""

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        """A stage of ``total`` units of work."""
        yield Stage()


def reporter_of(progress: bool | Reporter) -> Reporter:
    """What an argument ``progress`` asks for: one on stderr, a silent one, or the one given.

    Raises:
        OptionError: neither True, False nor a Reporter.
    """
    if isinstance(progress, Reporter):
        return progress
    if not isinstance(progress, bool):
        raise OptionError(
            f"progress={progress!r:.80}: give True or False, or a specdec.progress.Reporter"
        )
    return RichReporter() if progress else Reporter()


class Stage:
    """One stage of the work."""

    def advance(self, amount: float, text: str = "") -> None:
        """``amount`` more is done; ``text`` says how it goes."""

    def at(self, amount: float, text: str = "") -> None:
        """``amount`` is done in all."""


class RichReporter(Reporter):
    """Bars and lines by rich, on stderr."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        from rich import progress

        columns: Any = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[text]}"),
        )
        with progress.Progress(
            *columns,
            console=self._console,
            refresh_per_second=2,
            speed_estimate_period=SPEED_SECONDS,
        ) as bar:
            yield _RichStage(bar, bar.add_task(name, total=total, text=""))


class _RichStage(Stage):
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def advance(self, amount: float, text: str = "") -> None:
        self._bar.update(self._task, advance=amount, text=text)

    def at(self, amount: float, text: str = "") -> None:
        self._bar.update(self._task, completed=amount, text=text)
