"""Asynchronous calls: the same answers, in turns, and an event loop that goes on meanwhile."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from threading import Barrier, Event, get_ident
from typing import Any

import pytest
import tiny
from tiny import PROMPTS
from written_tokens import Written

from specdec import Engine
from specdec.asynchronous import DecodingThread
from specdec.errors import OptionError, PromptError

SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 2}


def noting(seen: list[Any], name: str) -> Any:
    """A logits processor that notes when its text gets a token."""

    def processor(ids: Any, scores: Any) -> Any:
        seen.append(name)
        return scores

    return processor


def test_answers_are_those_of_the_calls_without_it(dynamic: Engine) -> None:
    async def run() -> Any:
        return await asyncio.gather(
            dynamic.agenerate(PROMPTS[0], **SETTINGS),
            dynamic.agenerate(PROMPTS, **SETTINGS, batch_size=2),
            dynamic.agenerate(PROMPTS[0], n=2, **SETTINGS),
        )

    alone, batch, samples = asyncio.run(run())
    assert alone.token_ids == tiny.tokens(dynamic, PROMPTS[0], **SETTINGS)
    assert [r.token_ids for r in batch] == tiny.tokens(dynamic, PROMPTS, **SETTINGS)
    assert [r.token_ids for r in samples] == tiny.tokens(dynamic, PROMPTS[0], n=2, **SETTINGS)


def test_calls_take_turns_after_every_step(plain: Engine) -> None:
    seen: list[str] = []

    async def run() -> None:
        calls = (
            plain.agenerate(PROMPTS[0], logits_processor=noting(seen, name), **SETTINGS)
            for name in "ab"
        )
        await asyncio.gather(*calls)

    asyncio.run(run())
    assert seen == ["a", "b"] * 12


def test_the_event_loop_goes_on_meanwhile(plain: Engine) -> None:
    seen: list[str] = []

    async def run() -> None:
        call = asyncio.ensure_future(
            plain.agenerate(PROMPTS[0], logits_processor=noting(seen, "token"), **SETTINGS)
        )
        while not call.done():
            seen.append("loop")
            await asyncio.sleep(0)

    asyncio.run(run())
    first, last = seen.index("token"), len(seen) - seen[::-1].index("token")
    assert "loop" in seen[first:last]


def test_pieces_of_streams_add_up(dynamic: Engine) -> None:
    async def run() -> Any:
        alone, batch = dynamic.astream(PROMPTS[0], **SETTINGS), dynamic.astream(PROMPTS, **SETTINGS)
        pieces = [piece async for piece in alone]
        texts = [""] * len(PROMPTS)
        async for index, piece in batch:
            texts[index] += piece
        return pieces, alone.result, texts, batch.results

    pieces, result, texts, results = asyncio.run(run())
    assert "".join(pieces) == result.text
    assert result.token_ids == tiny.tokens(dynamic, PROMPTS[0], **SETTINGS)
    assert texts == [each.text for each in results]


def test_what_is_cancelled_or_left_stops_after_its_step(plain: Engine) -> None:
    seen: list[str] = []
    long: dict[str, Any] = {**SETTINGS, "max_new_tokens": 100, "eos_token_id": []}

    async def run() -> int:
        call = asyncio.ensure_future(
            plain.agenerate(PROMPTS[0], logits_processor=noting(seen, "call"), **long)
        )
        while len(seen) < 3:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await plain.agenerate(PROMPTS[0], **SETTINGS)
        ended = len(seen)
        stream = plain.astream(PROMPTS[0], logits_processor=noting(seen, "stream"), **long)
        await stream.__anext__()
        await stream.aclose()
        assert [piece async for piece in stream] == []
        assert 0 < len(stream.result.token_ids) < 100
        return ended

    ended = asyncio.run(run())
    assert ended < 100 and len(seen) < ended + 100


def test_a_streamer_of_a_call_that_is_cancelled_before_its_turn_is_told_of_the_end(
    plain: Engine,
) -> None:
    told, busy = Written(), Event()

    async def run() -> None:
        plain._thread.submit(copy_context(), busy.wait, 20)
        call = asyncio.create_task(plain.agenerate(PROMPTS[0], streamer=told, **SETTINGS))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        busy.set()
        await plain.agenerate(PROMPTS[0], **SETTINGS)

    asyncio.run(run())
    assert told.got == ["end"]


def test_a_stream_that_is_left_before_its_turn_does_not_begin(plain: Engine) -> None:
    seen: list[str] = []
    busy = Event()

    async def run() -> None:
        plain._thread.submit(copy_context(), busy.wait, 20)
        streams = [
            plain.astream(PROMPTS[0], logits_processor=noting(seen, name), **SETTINGS)
            for name in "ab"
        ]
        for stream in streams:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.__anext__(), 0.01)
        busy.set()
        await plain.agenerate(PROMPTS[0], **SETTINGS)

    asyncio.run(run())
    assert not seen


def test_what_is_current_in_a_call_is_current_in_its_steps(plain: Engine) -> None:
    current: ContextVar[str] = ContextVar("current", default="nothing")
    seen: list[str] = []

    def processor(ids: Any, scores: Any) -> Any:
        seen.append(current.get())
        return scores

    async def call(name: str, *, streamed: bool) -> None:
        current.set(name)
        given: dict[str, Any] = {"logits_processor": processor, "max_new_tokens": 3}
        if streamed:
            async for _ in plain.astream(PROMPTS[0], **given):
                pass
        else:
            await plain.agenerate(PROMPTS[0], **given)

    async def run() -> None:
        await asyncio.gather(call("a", streamed=False), call("b", streamed=True))

    asyncio.run(run())
    assert set(seen) == {"a", "b"}


def test_a_piece_that_was_not_waited_for_is_the_next_one(plain: Engine) -> None:
    def slow(ids: Any, scores: Any) -> Any:
        time.sleep(0.01)
        return scores

    async def run() -> tuple[list[str], str, int]:
        stream, pieces, late = plain.astream(PROMPTS[0], logits_processor=slow, **SETTINGS), [], 0
        while True:
            try:
                pieces.append(await asyncio.wait_for(stream.__anext__(), 0.002))
            except asyncio.TimeoutError:
                late += 1
            except StopAsyncIteration:
                return pieces, stream.result.text, late

    pieces, text, late = asyncio.run(run())
    assert "".join(pieces) == text and late > 3


def test_several_that_wait_share_the_pieces(plain: Engine) -> None:
    async def run() -> tuple[list[str], str]:
        stream, pieces = plain.astream(PROMPTS[0], **SETTINGS), []

        async def read() -> None:
            async for piece in stream:
                pieces.append(piece)

        await asyncio.gather(read(), read())
        return pieces, stream.result.text

    pieces, text = asyncio.run(run())
    assert sorted("".join(pieces)) == sorted(text or "")


def test_a_stream_has_no_result_before_its_first_piece_and_none_after_its_end(
    plain: Engine,
) -> None:
    async def run() -> None:
        stream = plain.astream(PROMPTS[0], **SETTINGS)
        with pytest.raises(OptionError, match="await a piece"):
            _ = stream.result
        await stream.aclose()
        assert [piece async for piece in stream] == []

    asyncio.run(run())


def test_mistakes_are_raised_where_the_answer_is_awaited(plain: Engine) -> None:
    async def run() -> None:
        with pytest.raises(OptionError, match="top_p"):
            await plain.agenerate(PROMPTS[0], top_p=7)
        with pytest.raises(PromptError):
            async for _ in plain.astream([]):
                pass

    asyncio.run(run())


def test_the_first_calls_of_several_threads_have_one_thread_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(ThreadPoolExecutor):
        def __init__(self, *given: Any, **named: Any) -> None:
            time.sleep(0.05)
            super().__init__(*given, **named)

    monkeypatch.setattr("specdec.asynchronous.ThreadPoolExecutor", Slow)
    shared, together = DecodingThread(), Barrier(4)

    def first(_: int) -> int:
        together.wait()
        return shared.submit(copy_context(), get_ident).result()

    with ThreadPoolExecutor(4) as callers:
        assert len(set(callers.map(first, range(4)))) == 1
