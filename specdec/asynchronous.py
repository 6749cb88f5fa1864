"""Generations in an event loop: run in one thread of their own, step by step, taking turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from specdec.results import GenerationResult
from specdec.streaming import BatchStream, TextStream

T = TypeVar("T")
_END = object()


class Turns:
    """One thread in which all asynchronous calls of an engine take turns after every step."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function returns when its turn comes."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="specdec")
        loop = asyncio.get_running_loop()
        result: T = await loop.run_in_executor(self._thread, function, *arguments)
        return result

    async def finish(self, steps: Generator[Any, None, T]) -> T:
        """What a generator returns at its end. Cancelled, it is closed after the step that runs."""
        try:
            ended: tuple[T] | None = None
            while ended is None:
                ended = await self.run(_step, steps)
        except asyncio.CancelledError:
            assert self._thread is not None
            self._thread.submit(steps.close)
            raise
        return ended[0]


def _step(steps: Generator[Any, None, T]) -> tuple[T] | None:
    """Run one step; at the end what the generator returns."""
    try:
        next(steps)
    except StopIteration as end:
        return (end.value,)
    return None


class AsyncStream:
    """The pieces of a text stream, for ``async for``: strings for one prompt, pairs of an index and
    a string for several.

    Args:
        turns: the thread in which it runs.
        make: makes the stream, in that thread.
    """

    def __init__(self, turns: Turns, make: Callable[[], TextStream | BatchStream]) -> None:
        self._turns, self._make = turns, make
        self._stream: Any = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        piece = await self._turns.run(self._next)
        if piece is _END:
            raise StopAsyncIteration
        return piece

    def _next(self) -> Any:
        if self._stream is None:
            self._stream = self._make()
        return next(self._stream, _END)

    async def aclose(self) -> None:
        """Stop here: what has been committed stands."""
        if self._stream is not None:
            await self._turns.run(self._stream.close)

    @property
    def result(self) -> GenerationResult:
        """Of one prompt, what has been generated so far."""
        found: GenerationResult = self._stream.result
        return found

    @property
    def results(self) -> list[GenerationResult]:
        """Of several prompts, what has been generated so far."""
        found: list[GenerationResult] = self._stream.results
        return found
