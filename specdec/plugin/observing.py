"""What an observer keeps for each generation that it watches."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from specdec.decoding.generation_info import GenerationInfo

_Kept = TypeVar("_Kept")


class Watched(Generic[_Kept]):
    """Keeps something for each generation, until it ends or is given up. Threads may share it.

    Args:
        begin: makes it at the first step.
        give_up: called with it when a generation is dropped before its end, as a stream that is
            left is.
    """

    def __init__(
        self, begin: Callable[[GenerationInfo], _Kept], give_up: Callable[[_Kept], None]
    ) -> None:
        self._begin, self._give_up, self._lock = begin, give_up, threading.Lock()
        self._running: weakref.WeakKeyDictionary[
            GenerationInfo, tuple[_Kept, weakref.finalize[..., GenerationInfo]]
        ] = weakref.WeakKeyDictionary()

    def of(self, generation: GenerationInfo) -> _Kept:
        """What is kept for a generation."""
        with self._lock:
            found = self._running.get(generation)
        if found is None:
            kept = self._begin(generation)
            found = kept, weakref.finalize(generation, self._give_up, kept)
            with self._lock:
                self._running[generation] = found
        return found[0]

    def end(self, generation: GenerationInfo) -> None:
        """A generation is over: nothing is kept for it any more."""
        with self._lock:
            _, finalizer = self._running.pop(generation)
        finalizer.detach()
