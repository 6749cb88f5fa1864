"""Sessions: later turns read only what is new; interruptions leave everything usable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPTS

from specdec import Engine

TURNS = ([3, 9, 11], [40], [8, 8, 2, 1])


@pytest.fixture(scope="module", params=["plain", "eagle", "eagle3", "dynamic"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    """How many tokens a row each forward of the target reads."""
    engine.target.new_cache(1, 1)  # the first one runs a forward to learn the layout
    widths: list[int] = []

    def note(_: Any, __: Any, kwargs: Any) -> None:
        widths.append(kwargs["input_ids"].shape[1])

    hook = engine.target.model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield widths
    finally:
        hook.remove()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_turn_equals_a_fresh_run_and_reads_only_what_is_new(
    engine: Engine, temperature: float
) -> None:
    session, prompt = engine.session(), list(PROMPTS[0])
    settings = {"max_new_tokens": 9, "temperature": temperature, "seed": 3}
    known = 0
    for turn in TURNS:
        prompt += turn
        with counted(engine) as widths:
            result = session.generate(prompt, **settings)
        assert result.token_ids == tiny.tokens(engine, prompt, **settings)
        unread = len(prompt) - 1 - known
        # The last step's tokens may not have reached the drafter: a few are read again.
        assert unread <= widths[0] <= unread + 6
        prompt += result.token_ids
        known = len(prompt) - 1
    assert known > 30


@pytest.mark.parametrize("fixture", ["eagle", "eagle3", "dynamic"])
def test_a_resumed_turn_drafts_the_very_trees_of_a_fresh_run(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    """What the drafter kept is what it would read again: else its drafts would be worse."""
    engine = request.getfixturevalue(fixture)
    session, prompt = engine.session(), list(PROMPTS[0])
    settings = {"max_new_tokens": 9, "temperature": 0}
    for turn in ([3, 9, 11], [], [8, 8, 2, 1]):
        prompt += turn
        generation = session.start(prompt, **settings)
        for own, fresh in zip(generation, tiny.steps(engine, prompt, **settings), strict=True):
            assert torch.equal(own.tree.tokens, fresh.tree.tokens)
            torch.testing.assert_close(own.tree.log_value, fresh.tree.log_value)
        prompt += generation.new_tokens(0)


def test_a_prompt_that_parts_early_is_read_from_there(engine: Engine) -> None:
    session = engine.session()
    first = [*PROMPTS[0], 30, 31, 32, 33, 34, 35]
    settings = {"max_new_tokens": 8, "temperature": 1.0, "seed": 1}
    session.generate(first, **settings)
    for other in (
        [*first[:8], 50, 51],  # parts in the middle
        first[:5],  # a prefix
        [50, 51, 52],  # nothing in common
        [50],  # one token
        [50, 51, 52, 53, 54],
    ):
        assert session.generate(other, **settings).token_ids == tiny.tokens(
            engine, other, **settings
        )


def test_batches_share_prefixes_row_by_row(engine: Engine) -> None:
    session = engine.session()
    settings = {"max_new_tokens": 7, "temperature": 1.0, "seed": [1, 2, 3]}
    rows = [list(p) for p in PROMPTS]
    for turn in TURNS:
        results = session.generate(rows, **settings)
        assert [r.token_ids for r in results] == tiny.tokens(engine, rows, **settings)
        rows = [[*row, *result.token_ids, *turn] for row, result in zip(rows, results, strict=True)]
        rows[1] = rows[1][:4]
    other = rows[:2]
    settings["seed"] = [5, 6]
    got = [r.token_ids for r in session.generate(other, **settings)]
    assert got == tiny.tokens(engine, other, **settings), "another number of rows"


def test_a_stream_left_early_keeps_what_was_committed(engine: Engine) -> None:
    session = engine.session()
    settings = {"max_new_tokens": 20, "temperature": 0, "eos_token_id": []}
    whole = tiny.tokens(engine, PROMPTS[0], **settings)
    stream = session.stream(PROMPTS[0], **settings)
    for _ in stream:
        if len(stream.result.token_ids) >= 4:
            break
    stream.close()
    partial = stream.result
    assert partial.finish_reason is None
    assert partial.token_ids == whole[: len(partial.token_ids)]
    assert partial.text and len(partial.token_ids) < 20
    prompt = [*PROMPTS[0], *partial.token_ids, 3]
    with counted(engine) as widths:
        result = session.generate(prompt, **settings)
    assert result.token_ids == tiny.tokens(engine, prompt, **settings)
    assert widths[0] < len(prompt) - 1, "the committed prefix was kept"


@pytest.mark.parametrize("place", ["target", "drafter"])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_an_interrupt_inside_a_forward_leaves_session_and_engine_usable(
    eagle: Engine, place: str, at: int
) -> None:
    session = eagle.session()
    settings = {"max_new_tokens": 12, "temperature": 0, "eos_token_id": []}
    wanted = tiny.tokens(eagle, PROMPTS[0], **settings)
    session.generate(PROMPTS[0][:6], **settings)
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt

    module = eagle.target.model if place == "target" else eagle.parts.drafter.head
    hook = (module.base_model if place == "target" else module).register_forward_hook(interrupt)
    stream = session.stream(PROMPTS[0], **settings)
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in stream:
                pass
    finally:
        hook.remove()
    partial = stream.result.token_ids
    assert partial == wanted[: len(partial)]
    assert session.generate(PROMPTS[0], **settings).token_ids == wanted
    assert tiny.tokens(eagle, PROMPTS[0], **settings) == wanted


@pytest.mark.parametrize("shared", [True, False], ids=["one session", "two sessions"])
def test_interleaved_streams_do_not_disturb_each_other(engine: Engine, shared: bool) -> None:
    settings = {"max_new_tokens": 14, "temperature": 1.0, "eos_token_id": []}
    wanted = [tiny.tokens(engine, p, seed=5, **settings) for p in PROMPTS]
    session = engine.session()
    sessions = [session if shared else engine.session() for _ in PROMPTS]
    streams = [s.start(p, seed=5, **settings) for s, p in zip(sessions, PROMPTS, strict=True)]
    running = [iter(s) for s in streams]
    while running:
        running = [r for r in running if next(r, None) is not None]
    assert [s.results()[0].token_ids for s in streams] == wanted
    again = session.generate(PROMPTS[0], seed=5, **settings)
    assert again.token_ids == wanted[0]


def test_a_generation_that_is_never_run_costs_nothing(engine: Engine) -> None:
    session = engine.session()
    with counted(engine) as widths:
        session.start(PROMPTS[0], max_new_tokens=5)
    assert widths == []
    assert session.generate(PROMPTS[0], max_new_tokens=5).token_ids == tiny.tokens(
        engine, PROMPTS[0], max_new_tokens=5
    )


def test_strategies_share_the_model_but_not_the_parts(plain: Engine, eagle: Engine) -> None:
    assert eagle.target.model is plain.target.model
    assert plain.parts.drafter is None and eagle.parts.drafter is not None
