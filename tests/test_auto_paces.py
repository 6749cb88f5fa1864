"""Depth and budget of ``auto`` on machines of known speed, chosen by values."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import tiny
import torch
from machine import machine
from test_auto import auto

from specdec import Engine
from specdec.decoding import loop
from specdec.decoding.step import Step
from specdec.drafting.prompt_lookup import Lookup
from specdec_plugins.auto.economy import Economy
from specdec_plugins.auto.pace import Plan
from specdec_plugins.auto.policy import AutoPolicy
from specdec_plugins.auto.record import Record
from specdec_plugins.auto.shortcut import Shortcut

PROMPT = tiny.PROMPTS[0]
# Without lookup, so that all drafts are the drafter's.
WIDE = {"depth": 8, "width": 2, "children": 3, "budget": 15, "lookup": False}
CHEAP: dict[str, float] = {"forward": 1.0, "token": 0.001, "level": 0.01}


@pytest.fixture(scope="module")
def same(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draft model that is always right."""
    return tiny.save_model(model, tmp_path_factory.mktemp("same"))


@pytest.fixture(scope="module")
def useless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draft model that has nothing to do with the target, and is sure of nothing."""
    other = tiny.make_model(seed=9)
    with torch.no_grad():
        other.lm_head.weight.mul_(0.01)
    return tiny.save_model(other, tmp_path_factory.mktemp("useless"))


class Seen(NamedTuple):
    """A step, with the plan and the room that there were before it began."""

    plan: Plan
    room: int
    step: Step


def run(
    engine: Engine, texts: int = 1, rows: int = 1, prompt: Any = PROMPT, **chosen: Any
) -> list[Seen]:
    """Every step of some texts."""
    before: list[tuple[Plan, int]] = []
    steps: list[Step] = []
    true = loop.draft

    def draft(parts: Any, state: Any, clock: Any) -> Any:
        before.append((parts.policy.plan, state.tightest_room))
        return true(parts, state, clock)

    with mock.patch.object(loop, "draft", draft):
        for seed in range(texts):
            settings = {"max_new_tokens": 100, "eos_token_id": [], "seed": seed, **chosen}
            steps += engine.start([prompt] * rows, **settings)
    return [Seen(*known, step) for known, step in zip(before, steps, strict=True)]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_useless_drafter_is_left_alone_and_tried_seldom(
    plain: Engine, useless: Path, rows: int
) -> None:
    own = auto(plain, useless, pace="shortcut", **WIDE)
    with machine(forward=1.0, token=0.05, level=0.3):
        run(own, texts=2, rows=rows)
        steps = run(own, texts=3, rows=rows)
    drafted = [seen for seen in steps if seen.plan.depth]
    assert len(drafted) <= 0.04 * len(steps)


def test_steps_in_which_nothing_pays_ask_and_learn_nothing_but_a_few(
    plain: Engine, useless: Path
) -> None:
    asked = [0, 0]
    guesses, take = Lookup.guesses, Economy._judge

    def counted(self: Lookup) -> Any:
        asked[0] += 1
        return guesses(self)

    def judged(self: Economy, *step: Any) -> None:
        asked[1] += 1
        take(self, *step)

    own = auto(plain, useless, pace="shortcut", **{**WIDE, "lookup": True})
    with machine(forward=1.0, token=0.5, level=5.0):
        run(own, texts=3, temperature=1.0)
        with (
            mock.patch.object(Lookup, "guesses", counted),
            mock.patch.object(Economy, "_judge", judged),
        ):
            steps = run(own, texts=3, temperature=1.0)
    assert len(steps) / 20 < asked[0] <= asked[1] < len(steps) / 7, asked


@pytest.mark.parametrize("length", [6, 40])
def test_no_more_is_saved_for_tries_than_plain_steps_took(
    plain: Engine, useless: Path, length: int
) -> None:
    credited = 0.0
    waited = Record.waited

    def counted(self: Record, seconds: float) -> None:
        nonlocal credited
        credited += seconds
        waited(self, seconds)

    own = auto(plain, useless, pace="shortcut", **WIDE)
    with machine(forward=1.0, token=0.05, level=0.3):
        run(own, texts=4, max_new_tokens=40)
        with mock.patch.object(Record, "waited", counted):
            steps = run(own, texts=8, max_new_tokens=length)
    plainly = sum(seen.step.tree.size == 1 for seen in steps)
    assert 0.7 * plainly < credited / 0.0105 <= plainly


def test_what_is_left_of_a_batch_begins_as_texts_do(plain: Engine, useless: Path) -> None:
    own = auto(plain, useless, pace="shortcut", **WIDE)
    chosen: dict[str, Any] = {"max_new_tokens": 60, "temperature": 0, "seed": 5}
    prompts = [PROMPT, [3, 3, 8], [12, 40], [7]]
    text = tiny.tokens(plain, prompts, eos_token_id=[], **chosen)
    ends = [text[0][30], text[1][5], text[2][15]]
    begun: list[Record] = []
    begin = Record.begin

    def counted(self: Record) -> None:
        begun.append(self)
        begin(self)

    with machine(forward=1.0, token=0.05, level=0.3), mock.patch.object(Record, "begin", counted):
        for _ in range(6):
            list(own.start(prompts, eos_token_id=ends, **chosen))
    records = own.parts.policy.memory.records.values()  # type: ignore[union-attr]
    assert len(records) > 1
    assert min(begun.count(record) for record in records) >= 3  # a rest may pass one by


def test_a_good_drafter_that_is_cheap_is_used_in_full(plain: Engine, same: Path) -> None:
    own = auto(plain, same, pace="shortcut", **WIDE)
    with machine(**CHEAP):
        run(own, texts=2)
        steps = run(own, texts=1)
    usual = steps[1:-2]  # in the last ones there is no room
    assert statistics.median(seen.step.tree.depth for seen in usual) == WIDE["depth"]
    assert statistics.mean(len(seen.step.new_tokens[0]) for seen in usual) > 7


def test_trees_are_smaller_where_they_cost_more(plain: Engine, draft: Path) -> None:
    sizes, depths = [], []
    for token, level in ((0.001, 0.01), (0.3, 0.2)):
        own = auto(plain, draft, pace="shortcut", **WIDE)
        with machine(forward=1.0, token=token, level=level):
            run(own, texts=2)
            steps = [seen.step for seen in run(own, texts=2) if seen.plan.depth]
        sizes.append(statistics.mean(step.tree.size for step in steps))
        depths.append(statistics.mean(step.tree.depth for step in steps))
    assert sizes[0] > 2 * sizes[1] and depths[0] > depths[1]


def test_a_drafter_that_becomes_good_is_found_out(plain: Engine, same: Path, useless: Path) -> None:
    own, good = (auto(plain, folder, pace="shortcut", **WIDE) for folder in (useless, same))
    with machine(**{**CHEAP, "level": 0.3}):
        run(own, texts=3)
        assert sum(seen.plan.depth > 0 for seen in run(own)) < 5, "of 100"
        own.parts = replace(own.parts, drafter=good.parts.drafter)
        run(own, texts=3)
        tau = [len(seen.step.new_tokens[0]) for seen in run(own)]
    assert statistics.mean(tau) > 4


def test_a_long_prompt_is_not_read_by_the_drafter_for_a_short_answer(
    plain: Engine, draft: Path
) -> None:
    own = auto(plain, draft, pace="shortcut", **WIDE)
    with machine(**CHEAP):
        run(own, texts=2)
        known = own.parts.policy.memory.costs_of(1)  # type: ignore[union-attr]
        for seconds, drafts in ((0.005, False), (0.0, True)):
            for _ in range(20):
                known.reading.take(seconds)
            steps = run(own, prompt=PROMPT * 3, max_new_tokens=6)
            assert any(seen.plan.depth for seen in steps) is drafts


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_of_deep_trees_are_plain_decodings(
    plain: Engine, draft: Path, temperature: float
) -> None:
    own = auto(plain, draft, pace="shortcut", **WIDE)
    chosen: dict[str, Any] = {"max_new_tokens": 60, "temperature": temperature}
    chosen["eos_token_id"] = []
    with machine(**CHEAP):
        for seed in range(3):
            running = own.start(tiny.PROMPTS, seed=seed, **chosen)
            depths = [step.tree.depth for step in running]
            texts = [running.new_tokens(row) for row in range(len(tiny.PROMPTS))]
            assert texts == tiny.tokens(plain, tiny.PROMPTS, seed=seed, **chosen)
    assert max(depths) >= 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_that_repeat_themselves_are_drafted_from_themselves_and_stay_plain_decodings(
    plain: Engine, useless: Path, temperature: float
) -> None:
    own = auto(plain, useless, pace="shortcut", **{**WIDE, "lookup": True})
    asked: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": [], "seed": 2}
    asked |= {"top_k": 2} if temperature else {}
    prompts = [PROMPT * 3, PROMPT * 2, [4, 5] * 6]
    with machine(forward=1.0, token=0.01, level=5.0):
        running = own.session().start(prompts, temperature=temperature, **asked)
        steps = list(running)
        expected = plain.generate(prompts, temperature=temperature, **asked)
    assert [r.token_ids for r in running.results()] == [r.token_ids for r in expected]
    # The head is of no use: what is accepted in chains is the text's own.
    chains = [step for step in steps if step.tree.branching == 1]
    assert sum(sum(step.accepted) for step in chains) > 10


def test_a_text_that_breaks_its_promises_is_soon_drafted_from_seldom(
    plain: Engine, useless: Path
) -> None:
    own = auto(plain, useless, pace="shortcut", **{**WIDE, "lookup": True})
    prompt = [4, 5, 6] * 20  # goes on as before, and what is drawn does not
    with machine(forward=1.0, token=0.05, level=5.0):
        texts = [run(own, prompt=prompt, rows=4, temperature=1.0, seed=seed) for seed in range(6)]
    guessed = [sum(seen.step.tree.size > 1 for seen in text) for text in texts]
    later = sum(map(len, texts[3:]))
    assert guessed[0] > 0 and sum(guessed[3:]) < 0.05 * later, guessed


def test_a_text_that_keeps_its_promises_is_drafted_from_whatever_others_did(
    plain: Engine, useless: Path
) -> None:
    own = auto(plain, useless, pace="shortcut", **{**WIDE, "lookup": True})
    with machine(forward=1.0, token=0.01, level=5.0):
        before = run(own, texts=2, prompt=PROMPT * 3)
        (record,) = own.parts.policy.memory.records.values()  # type: ignore[union-attr]
        for _ in range(500):
            record.text.take(accepted=0.0, promised=4.0)
        assert record.text.factor < 0.1
        after = run(own, texts=12, prompt=PROMPT * 3)[-len(before) :]
    guessed = [sum(seen.step.tree.size > 1 for seen in steps) for steps in (before, after)]
    assert guessed[1] > guessed[0] / 2 > 5


def test_a_try_in_which_the_machine_stalls_is_not_the_last(plain: Engine, useless: Path) -> None:
    def tried(level: float, texts: int = 1) -> bool:
        with machine(forward=1.0, token=0.05, level=level):
            return any(seen.plan.depth for seen in run(own, texts=texts))

    own = auto(plain, useless, pace="shortcut", **WIDE)
    assert tried(0.3, texts=12)
    assert any(tried(500.0) for _ in range(20))
    assert tried(0.3, texts=12)


def test_no_step_grows_more_than_one_level_to_measure_it(plain: Engine, draft: Path) -> None:
    grown = []
    true = AutoPolicy.rerank

    def rerank(self: AutoPolicy, builder: Any) -> Any:
        grown.append(builder.depth)
        return true(self, builder)

    own = auto(plain, draft, pace="shortcut", **WIDE)
    with (
        machine(forward=1.0, token=0.01, level=0.5),
        mock.patch.object(Shortcut, "_rate", lambda self: 1e9),
        mock.patch.object(AutoPolicy, "rerank", rerank),
        mock.patch.object(Record, "brought", lambda *_, **__: None),
    ):
        run(own, texts=2)
    assert set(grown[2:]) == {1, 2}, grown
    assert 1 <= grown.count(2) <= len(grown) / 10
