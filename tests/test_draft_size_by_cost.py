"""What a step without a network verifies: what pays by the seconds that steps took."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec import Engine
from specdec.decoding.clock import StepSeconds
from specdec.drafting.draft_size_by_cost import DraftSizeByCost
from specdec.errors import OptionError
from specdec.testing.fake_clock import fake_clock


def rows(number: int = 1, finished: int = 0, longest: int = 100, device: str = "cpu") -> Any:
    """All of a state that is looked at."""
    reasons = ["length"] * finished + [None] * (number - finished)
    tokens = SimpleNamespace(device=torch.device(device))
    return SimpleNamespace(rows=number, finish_reasons=reasons, longest=longest, tokens=tokens)


def take(draft_size: DraftSizeByCost, nodes: int, seconds: float, state: Any) -> None:
    step: Any = SimpleNamespace(tree=SimpleNamespace(size=nodes))
    draft_size.learn(step, StepSeconds((), seconds, 0.0), state)


def measured(each: float, state: Any) -> DraftSizeByCost:
    """One that knows plain steps of 1 second, each draft token of a row adding ``each``."""
    draft_size = DraftSizeByCost()
    for nodes in (1, 1, 1, 1, 2, 2, 5, 5, 9, 9):
        take(draft_size, nodes, 1 + each * (nodes - 1), state)
    return draft_size


@given(
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8),
    st.floats(0.02, 0.9),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_tokens_are_drafted_as_long_as_each_brings_more_than_its_time(
    probabilities: list[float], each: float, number: int, finished: int
) -> None:
    state = rows(number + finished, finished)
    probabilities = sorted((number * probability for probability in probabilities), reverse=True)
    gains = [sum(probabilities[: n + 1]) for n in range(len(probabilities))]
    count = measured(each, state).count(gains, state)
    worth = [0.0, *(gain - number * each * n for n, gain in enumerate(gains, start=1))]
    assert worth[count] == pytest.approx(max(worth), abs=1e-6)


def test_plain_steps_are_measured_first_and_now_and_then() -> None:
    draft_size, state, counts = DraftSizeByCost(), rows(), []
    for _ in range(600):
        counts.append(draft_size.count([1.0], state))
        take(draft_size, counts[-1] + 1, 1.0, state)
    assert counts[:3] == [0] * 3
    assert 0 < counts[3:].count(0) <= 0.03 * len(counts)


def test_a_size_that_stalls_shut_out_is_tried_again_and_little_is_lost_meanwhile() -> None:
    draft_size, state = DraftSizeByCost(), rows()
    for _ in range(4):
        take(draft_size, 1, 1.0, state)
    for _ in range(5):
        take(draft_size, 2, 4.0, state)
    assert draft_size.count([0.5], state) == 0
    counts = []
    for _ in range(3000):
        counts.append(draft_size.count([0.5], state))
        take(draft_size, counts[-1] + 1, 1.1 if counts[-1] else 1.0, state)
    assert sum(counts[-100:]) > 90


def test_what_never_pays_loses_hardly_any_time() -> None:
    draft_size, state, draw = DraftSizeByCost(), rows(), random.Random(0)
    seconds = tokens = 0.0
    for _ in range(5000):
        count = draft_size.count([0.2, 0.3], state)
        took = 1.0 if count == 0 else 1.5 + 0.05 * count
        take(draft_size, count + 1, took, state)
        seconds += took
        tokens += 1 + (count > 0 and draw.random() < 0.2)
    assert tokens / seconds > 0.99


# Expected tokens of 1 to 60 draft tokens: one of the first 8, two of the others.
GAINS = [min(n, 8) / 8 + max(0, n - 8) / 26 for n in range(1, 61)]


def with_eight_free(state: Any) -> DraftSizeByCost:
    """One that knows that 8 draft tokens take as long as none."""
    draft_size = DraftSizeByCost()
    for nodes in (1, 1, 1, 1, 9, 9, 9):
        take(draft_size, nodes, 1.0, state)
    return draft_size


@pytest.mark.parametrize(("device", "count"), [("cpu", 8), ("cuda", 60)])
def test_many_draft_tokens_are_thought_cheaper_on_a_gpu(device: str, count: int) -> None:
    state = rows(device=device)
    assert with_eight_free(state).count(GAINS, state) == count


def test_what_turns_out_dear_on_a_gpu_is_soon_given_up() -> None:
    state, counts = rows(device="cuda"), []
    draft_size = with_eight_free(state)
    for _ in range(100):
        counts.append(draft_size.count(GAINS, state))
        take(draft_size, counts[-1] + 1, 1.0 + max(0, counts[-1] - 8) / 20, state)
    assert counts[0] == 60 and sum(count > 8 for count in counts) <= 4


def test_a_batch_that_shrinks_goes_on_with_what_is_known() -> None:
    draft_size = measured(0.1, rows(4))
    assert draft_size.count([2.7], rows(3)) == 1 and draft_size.count([0.2], rows(3)) == 0
    assert draft_size.count([2.7], rows(1)) == 0, "of that nothing is known"


def test_a_tree_of_one_size_is_paid_for_whole() -> None:
    state = rows()
    draft_size = measured(0.1, state)
    assert draft_size.count([0.5], state) == 1
    assert draft_size.count([0.5], state, least=8) == 0
    assert draft_size.count([0.5, 0.9], state, least=8) == 2


@pytest.mark.parametrize("strategy", ["lookup", "suffix"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_are_those_of_plain_decoding_whatever_the_clock_says(
    model: Any, strategy: str, temperature: float
) -> None:
    plain = Engine(model, strategy="plain")
    engine = plain.with_strategy(strategy)
    few: dict[str, Any] = {"top_k": 2} if temperature else {}
    asked = {"max_new_tokens": 60, "seed": 3, "temperature": temperature, **few}
    with fake_clock():
        ours = engine.generate(tiny.PROMPTS, **asked)
    assert [r.token_ids for r in ours] == tiny.tokens(plain, tiny.PROMPTS, **asked)
    assert max(r.stats.tau for r in ours) > 1.05, "where all sizes cost the same it drafts"


@pytest.mark.parametrize("strategy", ["lookup", "suffix"])
def test_a_seed_repeats_a_run_under_rejection_whatever_the_clock_says(
    model: Any, strategy: str
) -> None:
    engine = Engine(model, strategy=strategy, acceptor="rejection")
    asked = {"max_new_tokens": 60, "seed": 3, "temperature": 1.0, "top_k": 2, "eos_token_id": []}
    with fake_clock():  # it ticks otherwise in every run
        runs = [engine.generate(tiny.PROMPTS[0], **asked) for _ in range(4)]
    assert all(run.token_ids == runs[0].token_ids for run in runs)
    assert runs[0].stats.tau > 1.05
    with pytest.raises(OptionError, match=f"'{strategy}'.*'rejection'.*'match'"):
        Engine(
            model,
            strategy=strategy,
            acceptor="rejection",
            options={"drafter": {"size_by_cost": True}},
        )
