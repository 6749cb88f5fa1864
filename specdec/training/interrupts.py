"""Ctrl-C while training: the step is finished first, so that nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted:
    """Whether a person has asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def interrupts() -> Iterator[Interrupted]:
    """Within, the first Ctrl-C is remembered, and the second one stops at once."""
    state = Interrupted()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def remember(number: int, frame: FrameType | None) -> None:
        if state.asked:
            raise KeyboardInterrupt
        state.asked = True

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)
