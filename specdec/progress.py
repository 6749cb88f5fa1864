"""What a run tells while it works: nothing, or bars and lines on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from specdec.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console


# Where nothing can be drawn over, a line at most so often.
SECONDS_BETWEEN_LINES = 60.0


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

    def skip_to(self, amount: float, text: str = "") -> None:
        """The same, but what is new was done before, by a run that this one goes on from: it says
        nothing of the time that is left."""
        self.at(amount, text)


class RichReporter(Reporter):
    """Bars and lines by rich, on stderr; where that is no terminal, of a bar a line now and then.

    Args:
        console: in place of stderr.
        transient: whether a bar goes when its stage ends.
        by_itself: whether a bar is drawn while nothing is told, which takes CPU time.
    """

    def __init__(
        self, console: Console | None = None, *, transient: bool = False, by_itself: bool = True
    ) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True, highlight=False)
        self._transient, self._by_itself = transient, by_itself

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[ShownStage]:
        drawn = self._console.is_interactive or self._console.is_jupyter
        made = self._bar(name, total) if drawn else self._lines(name, total)
        with made as stage:
            yield stage

    @contextmanager
    def _bar(self, name: str, total: float) -> Iterator[ShownStage]:
        from rich import progress

        def text(field: str) -> Any:
            return progress.TextColumn(f"{{task.{field}}}", markup=False)

        columns: Any = (
            text("description"),
            progress.BarColumn(),
            text("fields[amount]"),
            progress.TimeElapsedColumn(),
            text("fields[left]"),
            text("fields[text]"),
        )
        bar = progress.Progress(
            *columns,
            console=self._console,
            refresh_per_second=2,
            auto_refresh=self._by_itself,
            transient=self._transient,
        )
        stage = ShownStage(name, total, self._console.get_time)
        fields: Any = stage.fields()
        task = bar.add_task(name, total=total, **fields)

        def draw() -> None:
            now: Any = {"completed": stage.done, "total": stage.total, **stage.fields()}
            bar.update(task, refresh=not self._by_itself, **now)

        stage.changed = draw
        with bar:
            yield stage

    @contextmanager
    def _lines(self, name: str, total: float) -> Iterator[ShownStage]:
        stage = ShownStage(name, total, self._console.get_time)
        told, written = False, 0.0

        def write() -> None:
            nonlocal told, written
            told = True
            if (now := stage.seconds()) >= written + SECONDS_BETWEEN_LINES:
                written = now
                self._console.print(stage.line(), markup=False, soft_wrap=True)

        stage.changed = write
        try:
            yield stage
        finally:
            if told and (written or not self._transient):
                self._console.print(stage.line(ended=True), markup=False, soft_wrap=True)


class ShownStage(Stage):
    """A stage that is shown: what is done of it, since when, and how long the rest takes at the
    speed of what was done here.

    Attributes:
        done, total: of the work; more or less of it may be found while it goes on.
        changed: called after every change.
    """

    def __init__(self, name: str, total: float, clock: Callable[[], float]) -> None:
        self.name, self.done, self.total, self.text = name, 0.0, total, ""
        self.changed: Callable[[], None] = lambda: None
        self._clock, self._began = clock, clock()
        self._worked, self._working = 0.0, 0.0  # what was done here, and its seconds
        self._last = self._began

    def advance(self, amount: float, text: str = "") -> None:
        self.at(self.done + amount, text)

    def at(self, amount: float, text: str = "") -> None:
        now = self._clock()
        self._worked += amount - self.done
        self._working += now - self._last
        self._move(amount, now, text)

    def skip_to(self, amount: float, text: str = "") -> None:
        self._move(amount, self._clock(), text)

    def _move(self, amount: float, now: float, text: str) -> None:
        self.done, self._last, self.text = amount, now, text
        self.changed()

    def seconds(self) -> float:
        """Since the stage began."""
        return self._clock() - self._began

    def amount(self) -> str:
        """What is done: ``2 of 5 (40%)``, of a share ``40%``."""
        share = f"{int(100 * self.done / self.total)}%" if self.total else ""
        return share if self.total <= 1 else f"{self.done:,.0f} of {self.total:,.0f} ({share})"

    def left(self) -> str:
        """The time that is left."""
        if self._worked <= 0:
            return "-:--:--"
        return _time((self.total - self.done) * self._working / self._worked)

    def fields(self) -> dict[str, str]:
        """What stands beside the bar."""
        return {"amount": self.amount(), "left": self.left(), "text": self.text}

    def line(self, *, ended: bool = False) -> str:
        """All of it in words."""
        told, gone = f"{self.name} {self.amount()}".strip(), _time(self.seconds())
        times = (f"in {gone}",) if ended else (f"{gone} so far", f"{self.left()} left")
        return ", ".join(filter(None, (told, *times, self.text)))


def _time(seconds: float) -> str:
    """``1:02:03``."""
    return str(timedelta(seconds=max(0, round(seconds))))
