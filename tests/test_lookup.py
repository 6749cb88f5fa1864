"""Prompt lookup: what is found, how far it is trusted, and that the text stays the target's."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from specdec import Component, Engine, hookimpl
from specdec.decoding.clock import StepSeconds
from specdec.decoding.interfaces import LevelProposer, TreeGrower, TreePolicy
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.expansion import grow_level
from specdec.drafting.ngram_matcher import NgramMatcher
from specdec.drafting.prompt_lookup import PromptLookup

texts = st.lists(st.integers(0, 3), min_size=0, max_size=40)


def expected(text: list[int], longest: int, most: int) -> tuple[int, ...]:
    """The definition, by trying every place."""
    for size in range(min(longest, len(text)), 0, -1):
        run = text[len(text) - size :]
        for end in range(len(text) - 1, size - 1, -1):
            if text[end - size : end] == run:
                return tuple((text[end:] * most)[:most])
    return ()


@examples(100, many=500)
@given(texts, texts, st.integers(1, 5), st.integers(1, 8))
def test_a_guess_follows_the_latest_of_the_longest_matches_however_the_text_grew(
    start: list[int], more: list[int], longest: int, most: int
) -> None:
    text, at_once = NgramMatcher(longest), NgramMatcher(longest)
    text.extend(start)
    text.extend(more)
    at_once.extend(start + more)
    assert text.guess(most) == at_once.guess(most)
    assert text.guess(most).tokens == expected(start + more, longest, most)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.95])
def test_probabilities_approach_the_rate_at_which_a_text_repeats_itself(rate: float) -> None:
    draw, text, found = random.Random(0), NgramMatcher(1), []
    text.extend([*range(50), 0])
    for step in range(2500):
        guess = text.guess(3)
        if step > 500:
            found.append(guess.probabilities)
        right = draw.random() < rate
        text.extend([guess.tokens[0] if right else (guess.tokens[0] + draw.randrange(1, 50)) % 50])
    for place, probabilities in enumerate(zip(*found, strict=True)):
        assert sum(probabilities) / len(probabilities) == pytest.approx(
            rate ** (place + 1), abs=0.05
        )


@given(texts, st.integers(1, 5))
def test_probabilities_fall_along_the_guess(tokens: list[int], longest: int) -> None:
    text = NgramMatcher(longest)
    text.extend(tokens)
    probabilities = text.guess(6).probabilities
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert all(0 < probability < 1 for probability in probabilities)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ragged_batches_decode_like_plain_decoding_with_long_accepted_paths(
    model: Any, temperature: float
) -> None:
    plain = Engine(model, strategy="plain")
    engine = plain.with_strategy(
        "lookup", options={"drafter": {"min_probability": 0.0, "size_by_cost": False}}
    )
    # A set of few tokens repeats itself whatever the model thinks of it.
    settings_: dict[str, Any] = {"top_k": 2} if temperature else {}
    asked = {"max_new_tokens": 60, "seed": 3, "temperature": temperature, **settings_}
    ours = engine.generate(tiny.PROMPTS, **asked)
    assert [r.token_ids for r in ours] == [
        r.token_ids for r in plain.generate(tiny.PROMPTS, **asked)
    ]
    assert max(r.stats.tau for r in ours) > 1.1


def test_a_text_that_never_repeats_a_token_is_decoded_step_by_step(model: Any) -> None:
    engine = Engine(model, strategy="lookup")
    prompt = list(range(8, 30))
    steps = list(engine.session().start(prompt, max_new_tokens=1, eos_token_id=[]))
    assert [step.tree.size for step in steps] == [1]


def test_rows_look_up_in_their_own_text(model: Any) -> None:
    engine = Engine(
        model,
        strategy="lookup",
        options={"drafter": {"min_probability": 0.0, "depth": 2, "size_by_cost": False}},
    )
    prompts = [[11, 12, 13, 14, 11], [21, 22, 23, 24, 21]]
    step = next(iter(engine.session().start(prompts, max_new_tokens=9)))
    assert step.tree.tokens.tolist() == [[11, 12, 13], [21, 22, 23]]


def test_a_guess_that_is_unlikely_is_not_drafted(model: Any) -> None:
    engine = Engine(
        model,
        strategy="lookup",
        options={"drafter": {"min_probability": 0.99, "size_by_cost": False}},
    )
    running = engine.session().start(tiny.PROMPTS[0], max_new_tokens=20, eos_token_id=[])
    assert {step.tree.size for step in running} == {1}


class EveryOther(TreeGrower):
    """Grows a level in one step, drafts from the text in the next."""

    def __init__(self, state: State) -> None:
        self._lookup, self._step = PromptLookup(state, 3, 4), 0

    @property
    def levels(self) -> int:  # type: ignore[override]
        return int(self._step % 2 == 0)

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        grow_level(builder, proposal, 2)

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        if builder.depth:
            return builder.tree()
        return self._lookup.tree(self._lookup.guesses())

    def learn(self, step: Step, seconds: StepSeconds) -> None:
        self._lookup.commit(step)
        self._step += 1


class EveryOtherPolicy(TreePolicy):
    def start(self, state: State, proposer: LevelProposer | None) -> EveryOther:
        return EveryOther(state)


@hookimpl
def specdec_tree_policies() -> list[Component]:
    return [Component("every_other", lambda _: EveryOtherPolicy())]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("drafter", ["eagle", "draft_model"])
def test_a_policy_may_draft_whole_trees_between_those_of_the_drafter(
    model: Any, head: Path, draft: Path, drafter: str, temperature: float
) -> None:
    plain = Engine(model, strategy="plain", plugins=[sys.modules[__name__]])
    checkpoint = {"checkpoint": str(head if drafter == "eagle" else draft)}
    engine = plain.with_strategy(
        "eagle2", drafter=drafter, policy="every_other", options={"drafter": checkpoint}
    )
    asked: dict[str, Any] = {"max_new_tokens": 40, "seed": 5, "temperature": temperature}
    running = engine.session().start(tiny.PROMPTS, **asked)
    sizes = [step.tree.size for step in running]
    assert max(sizes[1::2]) > 3 and set(sizes[::2]) <= {3, 1}
    texts = [r.token_ids for r in plain.generate(tiny.PROMPTS, **asked)]
    assert [r.token_ids for r in running.results()] == texts
