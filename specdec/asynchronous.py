"""Generations in an event loop: run in one thread of their own, step by step, taking turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from threading import Lock
from typing import Any, TypeVar

from specdec.errors import OptionError
from specdec.results import GenerationResult
from specdec.streaming import BatchStream, TextStream

T = TypeVar("T")
_END = object()


class DecodingThread:
    """One thread in which all asynchronous calls of an engine take turns after every step."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._starting = Lock()

    def submit(self, context: Context, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """What a function returns when its turn comes.

        Args:
            context: of the call that it belongs to, with what is current there.
        """
        with self._starting:  # event loops of several threads may make their first call at once
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="specdec")
        return self._thread.submit(context.run, function, *arguments)

    async def finish(self, steps: Generator[Any, None, T]) -> T:
        """What a generator returns at its end. Cancelled, it is closed after the step that runs."""
        context = copy_context()
        try:
            ended: tuple[T] | None = None
            while ended is None:
                ended = await asyncio.wrap_future(self.submit(context, _step, steps))
        except asyncio.CancelledError:
            self.submit(context, steps.close)
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
    a string for several. A piece that nobody waited for, after a timeout, is the next one.

    Args:
        thread: the thread in which it runs.
        make: makes the stream, in that thread.
    """

    def __init__(
        self, thread: DecodingThread, make: Callable[[], TextStream | BatchStream]
    ) -> None:
        self._thread, self._make, self._context = thread, make, copy_context()
        self._stream: Any = None
        self._asked: Future[Any] | None = None
        self._waiting, self._closed = 0, False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while True:
            if self._asked is None:
                self._asked = self._thread.submit(self._context, self._next)
            asked, self._waiting = self._asked, self._waiting + 1
            try:
                piece = await asyncio.shield(asyncio.wrap_future(asked))
            except asyncio.CancelledError:  # a piece whose turn has not come is not needed
                if self._asked is asked and self._waiting == 1 and asked.cancel():
                    self._asked = None
                raise
            except Exception:
                if self._asked is asked:
                    self._asked = None
                raise
            finally:
                self._waiting -= 1
            if self._asked is asked:  # else somebody who waited for it too has it
                self._asked = None
                break
        if piece is _END:
            raise StopAsyncIteration
        return piece

    def _next(self) -> Any:
        if self._closed:
            return _END
        if self._stream is None:
            self._stream = self._make()
        return next(self._stream, _END)

    async def aclose(self) -> None:
        """Stop here: what has been committed stands."""
        self._closed, self._asked = True, None
        closing = self._thread.submit(self._context, self._close)
        await asyncio.shield(asyncio.wrap_future(closing))

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    @property
    def result(self) -> GenerationResult:
        """Of one prompt, what has been generated so far.

        Raises:
            OptionError: nothing has: its first piece was not awaited.
        """
        found: GenerationResult = self._begun.result
        return found

    @property
    def results(self) -> list[GenerationResult]:
        """Of several prompts, what has been generated so far.

        Raises:
            OptionError: nothing has: no piece was awaited.
        """
        found: list[GenerationResult] = self._begun.results
        return found

    @property
    def _begun(self) -> Any:
        if self._stream is None:
            raise OptionError("the stream has not begun: await a piece of it before its result")
        return self._stream
