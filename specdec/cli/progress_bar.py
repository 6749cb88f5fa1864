"""The progress of a command that measures or checks, which takes no CPU time of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from specdec.progress import RichReporter


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """Progress on stderr; yields what moves it, given what is done, of how many, and what runs now.

    Where nothing ran before a call, what it adds was done by an earlier run.
    """
    with RichReporter(transient=True, by_itself=False).stage(name, 0) as stage:
        running = False

        def move(done: int, total: int, what: str) -> None:
            nonlocal running
            stage.total = total
            (stage.at if running else stage.skip_to)(done, what)
            running = bool(what)

        yield move
