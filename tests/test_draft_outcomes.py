"""What became of draft tokens: known calibration, positions, sums over runs."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from pages import ROOT

from specdec import Engine, bench
from specdec.bench.contenders import StrategyContender
from specdec.bench.draft_outcomes import DraftOutcomes, VerifiedTree, children
from specdec.bench.reliability import BINS, Reliability

COUNT = 20_000


def summary(confidence: torch.Tensor, rate: torch.Tensor, seed: int) -> Any:
    """The report on outcomes drawn with ``rate``, taken in by pieces."""
    draws = torch.rand(len(rate), generator=torch.Generator().manual_seed(seed))
    found = Reliability()
    for c, o in zip(confidence.split(7000), (draws < rate).split(7000), strict=True):
        found.add(c, o)
    return found.summary()


def uniform(seed: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """``COUNT`` confidences."""
    draws = torch.rand(COUNT, generator=torch.Generator().manual_seed(seed + 1))
    return low + (high - low) * draws


@given(seed=st.integers(0, 2**20))
def test_calibrated_confidences_have_next_to_no_error(seed: int) -> None:
    confidence = uniform(seed)
    found = summary(confidence, confidence, seed)
    assert found["count"] == sum(bin["count"] for bin in found["curve"]) == COUNT
    for bin in found["curve"]:
        assert bin["low"] <= bin["confidence"] <= bin["high"]
        assert bin["rate"] == pytest.approx(bin["confidence"], abs=0.06)
    assert found["ece"] < 0.02
    assert abs(found["bias"]) < 0.015
    assert found["brier"] == pytest.approx(1 / 6, abs=0.01)  # the mean of c (1 - c)
    assert found["log_loss"] == pytest.approx(0.5, abs=0.02)  # of the entropy of c, in nats


@given(seed=st.integers(0, 2**20), shift=st.floats(-0.3, 0.3))
def test_a_shift_of_all_confidences_is_the_error(seed: int, shift: float) -> None:
    rate = uniform(seed, 0.3, 0.7)
    found = summary(rate + shift, rate, seed)
    assert found["ece"] == pytest.approx(abs(shift), abs=0.02)
    assert found["bias"] == pytest.approx(shift, abs=0.015)


def test_errors_in_both_directions_do_not_cancel() -> None:
    low, high = torch.full((COUNT,), 0.3), torch.full((COUNT,), 0.7)
    rate = torch.full((2 * COUNT,), 0.5)
    found = summary(torch.cat([low, high]), rate, 0)
    assert found["ece"] == pytest.approx(0.2, abs=0.01)
    assert found["bias"] == pytest.approx(0.0, abs=0.01)


def test_the_best_scores_are_those_of_the_truth() -> None:
    rate = uniform(3, 0.2, 0.8)
    truth = summary(rate, rate, 3)
    for wrong in (rate + 0.1, rate - 0.1, 0.5 + 1.5 * (rate - 0.5), 0.5 + 0.5 * (rate - 0.5)):
        found = summary(wrong, rate, 3)
        assert found["log_loss"] > truth["log_loss"]
        assert found["brier"] > truth["brier"]


def test_certainty_falls_into_the_last_bin_and_has_a_finite_loss() -> None:
    found = Reliability()
    found.add(torch.tensor([1.0, 0.0]), torch.tensor([False, True]))
    result = found.summary()
    assert [bin["count"] for bin in result["curve"]] == [1, *[0] * (BINS - 2), 1]
    assert result["ece"] == 1.0
    assert 10 < result["log_loss"] < 20


def test_nothing_to_count_is_no_figure() -> None:
    found = Reliability().summary()
    assert (found["count"], found["ece"], found["log_loss"]) == (0, None, None)


def test_what_is_no_probability_is_counted_and_gives_no_figure() -> None:
    found = Reliability()
    found.add(torch.tensor([0.2, 1.5, -0.1]), torch.tensor([True, False, True]))
    result = found.summary()
    assert (result["count"], result["outside"], result["ece"]) == (1, 2, None)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_children_are_those_of_the_visited_nodes_with_the_committed_token(
    dynamic: Engine, temperature: float
) -> None:
    steps = tiny.steps(dynamic, [5, 9, 1], max_new_tokens=24, temperature=temperature, seed=1)
    assert max(step.accepted[0] for step in steps) > 1
    for step in steps:
        tree, expected = step.tree, []
        nodes = step.kept[0].tolist()
        for depth, (node, token) in enumerate(zip(nodes, step.new_tokens[0], strict=False), 1):
            below = [i for i in range(tree.size) if tree.parents[0, i] == node and tree.valid[0, i]]
            shares = [float((tree.log_value[0, i] - tree.log_value[0, node]).exp()) for i in below]
            for place, (i, share) in enumerate(zip(below, shares, strict=True)):
                better = [j for j, other in enumerate(shares) if (-other, j) < (-share, place)]
                taken = bool(tree.tokens[0, i] == token)
                expected.append((share, taken, depth, len(better) + 1))
        found = list(zip(*(part.tolist() for part in children(step)), strict=True))
        assert found == [(pytest.approx(c, abs=1e-6), *rest) for c, *rest in expected]
        assert sum(taken for _, taken, _, _ in found) >= step.accepted[0]


def test_a_tree_of_the_root_alone_has_no_children(plain: Engine) -> None:
    (step, *_) = tiny.steps(plain, [5, 9, 1], max_new_tokens=2, temperature=0)
    assert [len(part) for part in children(step)] == [0, 0, 0, 0]
    assert DraftOutcomes.of([VerifiedTree.of(step)]) is None


def test_invalid_draft_tokens_are_no_children(eagle: Engine) -> None:
    (step, *_) = tiny.steps(eagle, [5, 9, 1], max_new_tokens=8, temperature=0)
    cut = replace(step, tree=replace(step.tree, valid=torch.zeros_like(step.tree.valid)))
    assert len(children(step)[0]) > 0 and len(children(cut)[0]) == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_kept_of_a_step_says_the_same_when_the_text_is_complete(
    dynamic: Engine, temperature: float
) -> None:
    asked: dict[str, Any] = {"max_new_tokens": 24, "temperature": temperature, "seed": [1, 2]}
    at_once, kept = [], []
    for step in dynamic.session().start([[5, 9, 1], [3, 3]], **asked):
        kept.append(VerifiedTree.of(step))
        at_once.append([children(step, row) for row in range(len(step.new_tokens))])
    for each, then in zip(kept, at_once, strict=True):
        for row, found in enumerate(then):
            now = children(each, row)
            assert all(torch.equal(a, b) for a, b in zip(now, found, strict=True))


def test_positions_of_all_ranks_add_up_to_acceptance_by_depth(eagle: Engine) -> None:
    asked = bench.Settings(max_new_tokens=24)
    decoded = StrategyContender("x", eagle).decode([[5, 9, 1], [3, 3]], [0, 1], asked)
    found = DraftOutcomes.of(decoded.trees)
    assert found is not None and decoded.stats is not None
    stats, positions = decoded.stats, found.positions
    by_depth = [round(rate * n) for rate, n in zip(stats.alpha, stats.tried, strict=True)]
    assert sum(by_depth) > 0
    assert [sum(own) for own in positions.accepted] == by_depth
    assert [own[0] for own in positions.tried] == list(stats.tried)
    for tried, accepted in zip(positions.tried, positions.accepted, strict=True):
        assert len(tried) == len(accepted)
        assert all(a <= n for a, n in zip(accepted, tried, strict=True))
    assert sum(map(sum, positions.tried)) == found.reliability.summary()["count"]


def test_rows_that_fill_up_a_batch_do_not_count_again(eagle: Engine) -> None:
    prompts = [bench.Prompt("own", place, tuple(ids)) for place, ids in enumerate(tiny.PROMPTS[:3])]
    assert len(prompts) == 3
    found = []
    for size in (1, 2):
        settings = bench.Settings(max_new_tokens=12, batch_size=size, repetitions=1)
        report = bench.run({"eagle2": eagle}, prompts, settings, transformers=False)
        found.append(report.of("eagle2").outcomes)
    alone, together = found
    assert alone is not None and together is not None
    assert alone.positions == together.positions
    assert alone.reliability.summary()["count"] == together.reliability.summary()["count"] > 0


def test_drawn_tokens_have_positions_and_no_confidence(plain: Engine, draft: Path) -> None:
    options = {"drafter": {"checkpoint": str(draft)}}
    sampled = plain.with_strategy("draft_model", options=options)
    asked = bench.Settings(max_new_tokens=24, temperature=1.0)
    decoded = StrategyContender("x", sampled).decode([[5, 9, 1]], [0], asked)
    assert any(tree.sampled for tree in decoded.trees), "nothing was drawn"
    found = DraftOutcomes.of([tree for tree in decoded.trees if tree.sampled])
    assert found is not None and found.reliability.summary()["count"] == 0
    assert sum(map(sum, found.positions.tried)) > 0


counts = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=4)


@given(counts, counts, st.integers(0, 2**20))
def test_a_sum_is_that_of_everything_at_once_and_survives_json(
    one: list[list[int]], other: list[list[int]], seed: int
) -> None:
    draws = torch.rand(2, 50, generator=torch.Generator().manual_seed(seed))
    parts = []
    for table, confidence in zip((one, other), draws, strict=True):
        made = DraftOutcomes()
        made.reliability.add(confidence, confidence > 0.4)
        cells = [
            (d, r) for d, row in enumerate(table, 1) for r, n in enumerate(row, 1) for _ in range(n)
        ]
        depth, rank = torch.tensor(cells, dtype=torch.int64).view(-1, 2).T
        made.positions.add(depth, rank, rank == 1)
        parts.append(DraftOutcomes.restored(json.loads(json.dumps(asdict(made)))))
    total = DraftOutcomes.summed([None, *parts])
    assert total is not None
    whole = Reliability()
    whole.add(draws.flatten(), draws.flatten() > 0.4)
    for name, value in asdict(whole).items():
        assert getattr(total.reliability, name) == pytest.approx(value), name
    for depth in range(max(len(one), len(other))):
        for rank in range(4):
            n = sum(t[depth][rank] for t in (one, other) if depth < len(t) and rank < len(t[depth]))
            assert cell(total.positions.tried, depth, rank) == n
            assert cell(total.positions.accepted, depth, rank) == n * (rank == 0)


def cell(table: list[list[int]], depth: int, rank: int) -> int:
    """Of a ragged table, 0 beyond its ends."""
    return table[depth][rank] if depth < len(table) and rank < len(table[depth]) else 0


def test_the_recorded_command_has_no_path_of_a_machine() -> None:
    given = ["/a/benchmarks/calibration.py", "--data", "/a/b", "--prompts", "2", "--json=/c/d.json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))  # benchmarks/ is no package
        found = importlib.import_module("side_by_side").command([*given, "--plot", "/e.png"])
    assert found == (
        "python benchmarks/calibration.py --data PROMPTS --prompts 2 --json=OUT.json --plot OUT.png"
    )
