"""What an observer keeps for each generation that it watches."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from specdec.decoding.generation_info import GenerationInfo

_Kept = TypeVar("_Kept")


class PerGeneration(Generic[_Kept]):
    """Keeps something for each generation, until it ends or is given up. Threads may share it.

    A generation that is dropped before its end, as a stream that is left is, is noticed by the
    garbage collector, which may run in the midst of anything, with any lock held. So it is only
    noted then; ``give_up`` is called by :meth:`settle`, which :meth:`of` calls for the next step.

    Args:
        begin: makes what is kept, at the first step.
        give_up: called with it and when the generation was dropped, in nanoseconds since 1970.
    """

    def __init__(
        self, begin: Callable[[GenerationInfo], _Kept], give_up: Callable[[_Kept, int], None]
    ) -> None:
        self._begin, self._give_up, self._lock = begin, give_up, threading.Lock()
        self._dropped: deque[tuple[_Kept, int]] = deque()
        self._running: weakref.WeakKeyDictionary[
            GenerationInfo, tuple[_Kept, weakref.finalize[..., GenerationInfo]]
        ] = weakref.WeakKeyDictionary()

    def of(self, generation: GenerationInfo) -> _Kept:
        """What is kept for a generation."""
        self.settle()
        with self._lock:
            found = self._running.get(generation)
        if found is None:
            kept = self._begin(generation)
            found = kept, weakref.finalize(generation, _note, self._dropped, kept)
            with self._lock:
                self._running[generation] = found
        return found[0]

    def end(self, generation: GenerationInfo) -> None:
        """A generation is over: nothing is kept for it any more."""
        with self._lock:
            _, finalizer = self._running.pop(generation)
        finalizer.detach()

    def settle(self) -> None:
        """Call ``give_up`` for what was dropped since the last time."""
        while self._dropped:
            try:
                kept, when = self._dropped.popleft()
            except IndexError:  # another thread had the last one
                return
            self._give_up(kept, when)


def _note(dropped: deque[tuple[_Kept, int]], kept: _Kept) -> None:
    dropped.append((kept, time.time_ns()))
