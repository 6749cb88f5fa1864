"""benchmarks/calibration.py: what it says of confidences whose calibration is known."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from pages import ROOT

from specdec import Engine

COUNT = 20_000


@pytest.fixture(scope="module")
def reliability() -> Iterator[ModuleType]:
    """The module; benchmarks/ is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("reliability")


def summary(module: ModuleType, confidence: torch.Tensor, rate: torch.Tensor, seed: int) -> Any:
    """The report on outcomes drawn with ``rate``, taken in by pieces."""
    draws = torch.rand(len(rate), generator=torch.Generator().manual_seed(seed))
    found = module.Reliability()
    for c, o in zip(confidence.split(7000), (draws < rate).split(7000), strict=True):
        found.add(c, o)
    return found.summary()


def uniform(seed: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """``COUNT`` confidences."""
    draws = torch.rand(COUNT, generator=torch.Generator().manual_seed(seed + 1))
    return low + (high - low) * draws


@given(seed=st.integers(0, 2**20))
def test_calibrated_confidences_have_next_to_no_error(reliability: ModuleType, seed: int) -> None:
    confidence = uniform(seed)
    found = summary(reliability, confidence, confidence, seed)
    assert found["count"] == sum(bin["count"] for bin in found["curve"]) == COUNT
    for bin in found["curve"]:
        assert bin["low"] <= bin["confidence"] <= bin["high"]
        assert bin["rate"] == pytest.approx(bin["confidence"], abs=0.06)
    assert found["ece"] < 0.02
    assert abs(found["bias"]) < 0.015
    assert found["brier"] == pytest.approx(1 / 6, abs=0.01)  # the mean of c (1 - c)
    assert found["log_loss"] == pytest.approx(0.5, abs=0.02)  # of the entropy of c, in nats


@given(seed=st.integers(0, 2**20), shift=st.floats(-0.3, 0.3))
def test_a_shift_of_all_confidences_is_the_error(
    reliability: ModuleType, seed: int, shift: float
) -> None:
    rate = uniform(seed, 0.3, 0.7)
    found = summary(reliability, rate + shift, rate, seed)
    assert found["ece"] == pytest.approx(abs(shift), abs=0.02)
    assert found["bias"] == pytest.approx(shift, abs=0.015)


def test_errors_in_both_directions_do_not_cancel(reliability: ModuleType) -> None:
    low, high = torch.full((COUNT,), 0.3), torch.full((COUNT,), 0.7)
    rate = torch.full((2 * COUNT,), 0.5)
    found = summary(reliability, torch.cat([low, high]), rate, 0)
    assert found["ece"] == pytest.approx(0.2, abs=0.01)
    assert found["bias"] == pytest.approx(0.0, abs=0.01)


def test_the_best_scores_are_those_of_the_truth(reliability: ModuleType) -> None:
    rate = uniform(3, 0.2, 0.8)
    truth = summary(reliability, rate, rate, 3)
    for wrong in (rate + 0.1, rate - 0.1, 0.5 + 1.5 * (rate - 0.5), 0.5 + 0.5 * (rate - 0.5)):
        found = summary(reliability, wrong, rate, 3)
        assert found["log_loss"] > truth["log_loss"]
        assert found["brier"] > truth["brier"]


def test_certainty_falls_into_the_last_bin_and_has_a_finite_loss(reliability: ModuleType) -> None:
    found = reliability.Reliability()
    found.add(torch.tensor([1.0, 0.0]), torch.tensor([False, True]))
    result = found.summary()
    assert [bin["count"] for bin in result["curve"]] == [1, *[0] * 8, 1]
    assert result["ece"] == 1.0
    assert 10 < result["log_loss"] < 20


def test_nothing_to_count_is_no_figure(reliability: ModuleType) -> None:
    found = reliability.Reliability().summary()
    assert (found["count"], found["ece"], found["log_loss"]) == (0, None, None)


def test_what_is_no_probability_is_refused(reliability: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"to 1\.5 are no probabilities"):
        reliability.Reliability().add(torch.tensor([0.2, 1.5]), torch.tensor([True, False]))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_children_are_those_of_the_visited_nodes_with_the_committed_token(
    reliability: ModuleType, dynamic: Engine, temperature: float
) -> None:
    steps = tiny.steps(dynamic, [5, 9, 1], max_new_tokens=24, temperature=temperature, seed=1)
    assert max(step.accepted[0] for step in steps) > 1
    for step in steps:
        tree, expected = step.tree, []
        for node, token in zip(step.kept[0].tolist(), step.new_tokens[0], strict=False):
            below = [i for i in range(tree.size) if tree.parents[0, i] == node and tree.valid[0, i]]
            shares = [float((tree.log_value[0, i] - tree.log_value[0, node]).exp()) for i in below]
            for i, share in zip(below, shares, strict=True):
                first = shares.index(max(shares)) == below.index(i)
                expected.append((share, bool(tree.tokens[0, i] == token), first))
        confidence, outcome, best = reliability.children(step)
        found = list(zip(confidence.tolist(), outcome.tolist(), best.tolist(), strict=True))
        assert found == [(pytest.approx(c, abs=1e-6), o, b) for c, o, b in expected]
        assert int(outcome.sum()) >= step.accepted[0]


def test_a_tree_of_the_root_alone_has_no_children(reliability: ModuleType, plain: Engine) -> None:
    (step, *_) = tiny.steps(plain, [5, 9, 1], max_new_tokens=2, temperature=0)
    assert [len(part) for part in reliability.children(step)] == [0, 0, 0]
    assert reliability.expected_tokens(step) == 1.0


def test_invalid_draft_tokens_promise_nothing(reliability: ModuleType, eagle: Engine) -> None:
    (step, *_) = tiny.steps(eagle, [5, 9, 1], max_new_tokens=8, temperature=0)
    valid = torch.zeros_like(step.tree.valid)
    assert reliability.expected_tokens(step) > 1
    cut = replace(step, tree=replace(step.tree, valid=valid))
    assert reliability.expected_tokens(cut) == 1.0
    assert len(reliability.children(cut)[0]) == 0


def test_the_recorded_command_has_no_path_of_a_machine(reliability: ModuleType) -> None:
    given = ["/a/benchmarks/calibration.py", "--data", "/a/b", "--prompts", "2", "--json=/c/d.json"]
    found = importlib.import_module("side_by_side").command([*given, "--plot", "/e.png"])
    assert found == (
        "python benchmarks/calibration.py --data PROMPTS --prompts 2 --json=OUT.json --plot OUT.png"
    )
