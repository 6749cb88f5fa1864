"""What the strategy ``auto`` decides on machines of known speed, and that texts stay the same."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
from machine import machine
from test_auto import auto

from specdec import Engine
from specdec.decoding.frontier import Frontier
from specdec.decoding.proposal import Proposal
from specdec.decoding.step import Step
from specdec.drafting.network_drafter import NetworkProposer

PROMPT = tiny.PROMPTS[0]
# Without lookup, so that all drafts are the drafter's.
WIDE = {
    "size_by_cost": True,
    "depth": 8,
    "width": 2,
    "children": 3,
    "budget": 15,
    "prompt_lookup": False,
}
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


@dataclass
class Run:
    """Some texts: every step, those for which the drafter was asked, and how fast it was."""

    steps: list[Step]
    asked: int
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(len(own) for step in self.steps for own in step.new_tokens)


def run(engine: Engine, texts: int = 1, rows: int = 1, prompt: Any = PROMPT, **chosen: Any) -> Run:
    """Decode some texts within :func:`machine`."""
    made = Run([], 0, 0.0)
    propose = NetworkProposer.propose

    def counted(self: NetworkProposer, frontier: Frontier) -> Proposal:
        made.asked += frontier.depth == 0
        return propose(self, frontier)

    with mock.patch.object(NetworkProposer, "propose", counted):
        for seed in range(texts):
            settings = {"max_new_tokens": 90, "eos_token_id": [], "seed": seed, **chosen}
            running = engine.start([prompt] * rows, **settings)
            started = time.perf_counter()  # the machine's clock
            made.steps += running
            made.seconds += time.perf_counter() - started
    return made


def drafted(made: Run) -> list[Step]:
    """The steps that verified draft tokens."""
    return [step for step in made.steps if step.tree.size > 1]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_useless_drafter_is_left_alone_and_tried_seldom(
    plain: Engine, useless: Path, rows: int
) -> None:
    own = auto(plain, useless, **WIDE)
    with machine(forward=1.0, token=0.05, level=0.3):
        run(own, texts=3, rows=rows)
        made, decoded = (run(each, texts=3, rows=rows) for each in (own, plain))
    assert made.asked <= 0.05 * len(made.steps)
    assert made.seconds <= 1.02 * decoded.seconds


def test_a_useless_drafter_is_left_alone_by_what_is_left_of_a_batch(
    plain: Engine, useless: Path
) -> None:
    own = auto(plain, useless, **WIDE)
    chosen: dict[str, Any] = {"max_new_tokens": 60, "temperature": 0, "seed": 5}
    prompts = [PROMPT, [3, 3, 8], [12, 40], [7]]
    text = tiny.tokens(plain, prompts, eos_token_id=[], **chosen)
    ends = [text[0][30], text[1][5], text[2][15]]
    with machine(forward=1.0, token=0.05, level=0.3):
        for _ in range(3):
            steps = list(own.start(prompts, eos_token_id=ends, **chosen))
    assert len({len(step.new_tokens) for step in steps}) > 2
    assert sum(step.tree.size > 1 for step in steps) <= 0.1 * len(steps)


def test_a_good_drafter_that_is_cheap_is_used_in_full(plain: Engine, same: Path) -> None:
    own = auto(plain, same, **WIDE)
    with machine(**CHEAP):
        run(own, texts=2)
        steps = run(own).steps
    usual = steps[1:-2]  # in the last ones there is no room
    assert statistics.median(step.tree.depth for step in usual) == WIDE["depth"]
    assert statistics.mean(len(step.new_tokens[0]) for step in usual) > 7


def test_the_seconds_of_a_last_level_end_when_it_is_computed(plain: Engine, same: Path) -> None:
    """Other levels end with a read; so does the prefill, which is no part of a step."""
    own, waited = auto(plain, same, **{**WIDE, "depth": 2}), []
    with (
        machine(**CHEAP),
        mock.patch("specdec_plugins.auto.policy.wait_for", waited.append),
        mock.patch("specdec.decoding.clock.wait_for", lambda device: waited.append("prefill")),
    ):
        made = run(own)
    full = sum(step.tree.depth == 2 for step in drafted(made))
    assert full and waited[0] == "prefill" and waited[1:] == [torch.device("cpu")] * full
    waited.clear()
    with mock.patch("specdec_plugins.auto.policy.wait_for", waited.append):
        run(auto(plain, same, size_by_cost=False))
    assert not waited, "costs are not asked for"


def test_trees_are_smaller_where_they_cost_more(plain: Engine, draft: Path) -> None:
    sizes, depths = [], []
    for token, level in ((0.001, 0.01), (0.3, 0.2)):
        own = auto(plain, draft, **WIDE)
        with machine(forward=1.0, token=token, level=level):
            run(own, texts=2)
            steps = drafted(run(own, texts=2))
        sizes.append(statistics.mean(step.tree.size for step in steps))
        depths.append(statistics.mean(step.tree.depth for step in steps))
    assert sizes[0] > 2 * sizes[1] and depths[0] > depths[1]


def test_a_drafter_that_becomes_good_is_found_out(plain: Engine, same: Path, useless: Path) -> None:
    own, good = (auto(plain, folder, **WIDE) for folder in (useless, same))
    with machine(**{**CHEAP, "level": 0.3}):
        run(own, texts=4)
        assert len(drafted(run(own))) <= 5
        own = own._with_parts(drafter=good.parts.drafter)
        run(own, texts=3)
        tau = [len(step.new_tokens[0]) for step in run(own).steps]
    assert statistics.mean(tau) > 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_of_deep_trees_are_plain_decodings(
    plain: Engine, draft: Path, temperature: float
) -> None:
    own = auto(plain, draft, **{**WIDE, "prompt_lookup": True})
    chosen: dict[str, Any] = {"max_new_tokens": 60, "temperature": temperature}
    chosen["eos_token_id"] = []
    with machine(**CHEAP):
        for seed in range(2):
            running = own.start(tiny.PROMPTS, seed=seed, **chosen)
            depths = [step.tree.depth for step in running]
            texts = [running.new_tokens(row) for row in range(len(tiny.PROMPTS))]
            assert texts == tiny.tokens(plain, tiny.PROMPTS, seed=seed, **chosen)
    assert max(depths) >= 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_that_repeat_themselves_are_drafted_from_themselves_and_stay_plain_decodings(
    plain: Engine, useless: Path, temperature: float
) -> None:
    own = auto(plain, useless, **{**WIDE, "prompt_lookup": True})
    asked: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": [], "seed": 2}
    asked |= {"top_k": 2} if temperature else {}
    prompts = [PROMPT * 3, PROMPT * 2, [4, 5] * 6]
    with machine(forward=1.0, token=0.01, level=5.0):
        running = own.session().start(prompts, temperature=temperature, **asked)
        steps = list(running)
        expected = plain.generate(prompts, temperature=temperature, **asked)
    assert [r.token_ids for r in running.results()] == [r.token_ids for r in expected]
    assert sum(sum(step.accepted) for step in steps if step.tree.from_text) > 10


def test_text_and_drafter_are_sources_of_one_tree(plain: Engine, draft: Path) -> None:
    own = auto(plain, draft, **{**WIDE, "prompt_lookup": True})
    with machine(forward=1.0, token=0.001, level=0.3):
        run(own, texts=2)
        steps = drafted(run(own, texts=2, prompt=PROMPT * 2))
    assert any(step.tree.branching > WIDE["children"] for step in steps), "a node of the text's own"


def test_a_text_that_breaks_its_promises_costs_little(plain: Engine, useless: Path) -> None:
    own = auto(plain, useless, **{**WIDE, "prompt_lookup": True})
    prompt = [4, 5, 6] * 10  # goes on as before, and what is drawn does not
    with machine(forward=1.0, token=0.05, level=5.0):
        asked: dict[str, Any] = {"prompt": prompt, "rows": 4, "temperature": 1.0, "texts": 4}
        first, later, decoded = run(own, **asked), run(own, **asked), run(plain, **asked)
    assert first.tokens / first.seconds > 0.9 * decoded.tokens / decoded.seconds
    assert later.tokens / later.seconds > 0.97 * decoded.tokens / decoded.seconds


def test_a_text_that_keeps_its_promises_is_drafted_from_whatever_others_did(
    plain: Engine, useless: Path
) -> None:
    own = auto(plain, useless, **{**WIDE, "prompt_lookup": True})
    asked: dict[str, Any] = {"prompt": PROMPT * 3, "temperature": 0}
    with machine(forward=1.0, token=0.01, level=5.0):
        before = len(drafted(run(own, **asked)))
        run(own, texts=4, prompt=[4, 5, 6] * 10, rows=1, temperature=0.99)
        after = len(drafted(run(own, **asked)))
    assert after > before / 2 > 3


def test_a_try_in_which_the_machine_stalls_is_not_the_last(plain: Engine, useless: Path) -> None:
    def tried(level: float, texts: int = 1) -> bool:
        with machine(forward=1.0, token=0.05, level=level):
            return run(own, texts=texts).asked > 0

    own = auto(plain, useless, **WIDE)
    assert tried(0.3, texts=4)
    assert any(tried(500.0) for _ in range(20))
    assert tried(0.3, texts=6)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_first_text_of_an_engine_is_not_much_slower(
    plain: Engine, useless: Path, temperature: float
) -> None:
    own = auto(plain, useless, **{**WIDE, "prompt_lookup": True})
    with machine(forward=1.0, token=0.05, level=0.3):
        made, decoded = (run(each, temperature=temperature) for each in (own, plain))
    assert made.tokens / made.seconds > 0.9 * decoded.tokens / decoded.seconds


def test_a_trace_has_the_levels_that_the_drafter_was_asked_for(plain: Engine, draft: Path) -> None:
    own = auto(plain, draft, **{**WIDE, "prompt_lookup": True})
    asked: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": [], "trace": True}
    with machine(forward=1.0, token=0.1, level=0.02):
        traced: Any = [own.generate(PROMPT * 2, seed=seed, **asked) for seed in range(4)]
    steps = [step for result in traced for step in result.trace.steps]
    for result in traced:
        levels = sum(step.levels for step in result.trace.steps)
        assert levels == result.stats.draft_forwards
    assert any(step.levels > step.depth for step in steps), "levels that were not worth verifying"
    alone = [step for step in steps if step.from_text]
    assert alone and all(step.levels == 0 < step.depth for step in alone)
