"""The strategy ``auto``: what it learns, what it measures, and that neither changes a text."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
import transformers as hf
from tiny import PROMPTS
from torch import Tensor

from specdec import Engine
from specdec.errors import OptionError
from specdec.session import Session
from specdec.testing.ticking import ticking
from specdec_plugins.auto.calibration import COUPLED, GREEDY, SAMPLED, Calibration, Prior
from specdec_plugins.auto.costs import Economy, interpolated, time_forwards

NEVER = float("-inf")
SMALL = {"depth": 5, "width": 3, "children": 4, "budget": 12}
SIZES = [
    SMALL,
    {"depth": 1, "width": 1, "children": 1, "budget": 1},
    {"depth": 2, "width": 2, "children": 100, "budget": 7},
]
FLAT = [(1, 1.0), (61, 1.0)]


def auto(plain: Engine, folder: Path, drafter: str = "draft_model", **policy: Any) -> Engine:
    options = {"policy": {**SMALL, **policy}, "drafter": {"checkpoint": str(folder)}}
    return plain.with_strategy("auto", drafter=drafter, options=options)


# --- what draft scores mean


def chosen_by(scores: Tensor, prior: Prior, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choices of the model: the hits ``[M, k]`` and the log loss of the truth."""
    others = torch.full((len(scores), 1), prior.others, dtype=torch.float64)
    law = torch.softmax(torch.cat([scores.double() / prior.sharpness, others], dim=1), dim=1)
    choice = torch.multinomial(law, 1, generator=generator)
    hit = torch.nn.functional.one_hot(choice[:, 0], law.shape[1])[:, :-1].bool()
    return hit, -law.gather(1, choice).log().mean()


def loss(calibration: Calibration, scores: Tensor, hit: Tensor) -> float:
    taken = calibration.log_acceptance(scores).double()
    missed = torch.log1p(-taken.exp().sum(dim=1).clamp(max=1 - 1e-9))
    return -float(torch.where(hit.any(1), taken.masked_fill(~hit, 0.0).sum(1), missed).mean())


def log_scores(count: int, generator: torch.Generator, spread: float = 2.0) -> Tensor:
    return (spread * torch.randn(count, 5, generator=generator)).log_softmax(-1)[:, :4]


@pytest.mark.parametrize("start", [GREEDY, COUPLED, SAMPLED], ids=["greedy", "coupled", "sampled"])
@pytest.mark.parametrize("truth", [Prior(0.35, -5.0), Prior(1.0, -1.0), Prior(2.0, 0.5)], ids=str)
def test_planted_parameters_are_learned_from_choices(start: Prior, truth: Prior) -> None:
    generator = torch.Generator().manual_seed(1)
    learned, prior = (Calibration(start, torch.device("cpu")) for _ in range(2))
    for _ in range(150):
        scores = log_scores(16, generator)
        hit, _ = chosen_by(scores, truth, generator)
        learned.learn(scores, hit, torch.ones(16, dtype=torch.bool))
    scores = log_scores(4000, generator)
    hit, best = chosen_by(scores, truth, generator)
    assert loss(learned, scores, hit) < loss(prior, scores, hit)
    assert loss(learned, scores, hit) < best + 0.02
    assert float(learned.theta[0]) == pytest.approx(math.log(truth.sharpness), abs=0.35)
    assert float(learned.theta[1]) == pytest.approx(truth.others, abs=1.0)


def test_what_was_learned_follows_a_drafter_that_changes() -> None:
    generator, device = torch.Generator().manual_seed(2), torch.device("cpu")
    calibration = Calibration(GREEDY, device)
    for truth in (Prior(0.4, -4.0), Prior(1.5, 0.0)):
        for _ in range(200):
            scores = log_scores(16, generator)
            hit, _ = chosen_by(scores, truth, generator)
            calibration.learn(scores, hit, torch.ones(16, dtype=torch.bool))
        scores = log_scores(4000, generator)
        hit, best = chosen_by(scores, truth, generator)
        assert loss(calibration, scores, hit) < best + 0.02


def test_nodes_that_do_not_count_and_children_that_do_not_exist_teach_nothing() -> None:
    device = torch.device("cpu")
    one, other = Calibration(COUPLED, device), Calibration(COUPLED, device)
    scores = torch.tensor([[-0.5, -1.0, NEVER], [-3.0, -4.0, -5.0]])
    hit = torch.tensor([[False, False, True], [True, False, False]])
    one.learn(scores, hit, torch.tensor([True, False]))
    other.learn(scores[:1, :2], torch.zeros(1, 2, dtype=torch.bool), torch.tensor([True]))
    torch.testing.assert_close(one.theta, other.theta)
    torch.testing.assert_close(one.precision, other.precision)
    still = Calibration(COUPLED, device)
    before = still.theta.clone()
    still.learn(scores, hit, torch.tensor([False, False]))
    assert torch.equal(still.theta, before)


def test_acceptance_rises_with_the_score_and_adds_up_to_less_than_1() -> None:
    scores = torch.tensor(
        [[0.0, -1.0, -2.5, -9.0], [-0.1, -0.1, NEVER, NEVER], [NEVER] * 4, [3.0, 2.0, 1.0, -60.0]]
    )
    for prior in (GREEDY, COUPLED, SAMPLED, Prior(5.0, 2.0)):
        log_p = Calibration(prior, torch.device("cpu")).log_acceptance(scores)
        assert log_p.dtype == torch.float32 and log_p.shape == scores.shape
        assert bool((log_p[:, :-1] >= log_p[:, 1:]).all())
        assert log_p.isneginf().tolist() == scores.isneginf().tolist()
        assert bool((log_p.exp().sum(dim=1) < 1 + 1e-6).all())
        assert float(log_p[0].exp().sum()) < 1


@pytest.mark.parametrize("spread", [0.0, 2.0, 50.0])
def test_noise_does_not_blow_up_what_is_learned(spread: float) -> None:
    generator = torch.Generator().manual_seed(3)
    calibration = Calibration(COUPLED, torch.device("cpu"))
    for step in range(300):
        scores = log_scores(8, generator, spread)
        scores[torch.rand(8, 4, generator=generator) < 0.3] = NEVER
        tokens = torch.randint(0, 6, (8, 1), generator=generator)
        if step > 150:
            tokens[:] = 5  # never a child, from now on
        counts = torch.rand(8, generator=generator) < 0.7
        calibration.learn(scores, torch.arange(4) == tokens, counts)
        assert bool(calibration.theta.isfinite().all())
        assert bool((calibration.theta.abs() < 30).all())
        assert bool((torch.linalg.eigvalsh(calibration.precision) > 0).all())
        assert not bool(calibration.log_acceptance(scores).isnan().any())


# --- what drafting costs and brings


def test_seconds_are_linear_between_what_was_timed_and_past_it() -> None:
    times = [(1, 1.0), (5, 3.0), (9, 4.0)]
    found = [interpolated(times, n) for n in (1, 3, 5, 7, 9, 13)]
    assert found == pytest.approx([1.0, 2.0, 3.0, 3.5, 4.0, 5.0])
    assert interpolated([(5, 2.0)], 1) == interpolated([(5, 2.0)], 50) == 2.0


def until_paused(economy: Economy, tokens: int, most: int = 200) -> int:
    """Take in steps of that many tokens, each twice as long as one of plain decoding."""
    for count in range(1, most + 1):
        economy.took(1, 9, verify=1.0, rest=0.0)
        economy.drafted(1, tokens, 9, [0.6, 0.2, 0.2])
        if economy.paused > 0:
            return count
    raise AssertionError(f"never paused in {most} steps")


def test_drafting_that_does_not_pay_pauses_ever_longer_and_is_tried_again() -> None:
    economy, pauses, probes = Economy(FLAT), [], []
    for _ in range(8):
        probes.append(until_paused(economy, 1))
        pauses.append(economy.paused)
        economy.paused = 0
    assert pauses == [16, 32, 64, 128, 256, 512, 512, 512]
    assert max(probes[1:]) < probes[0] < 16
    economy.paused = 500
    economy.resume()
    assert economy.paused <= 64, "a new text tries soon"
    economy.paused = 0
    until_paused(economy, 1)
    assert economy.paused < 512, "and pauses for less long"


def test_drafting_that_pays_never_pauses_and_shortens_the_next_pause() -> None:
    economy = Economy(FLAT)
    for _ in range(3):
        until_paused(economy, 1)
        economy.paused = 0
    with pytest.raises(AssertionError, match="never paused"):
        until_paused(economy, 4)
    assert economy.rate(1) == pytest.approx(2.0, rel=0.05)
    until_paused(economy, 1)
    assert economy.paused == 16


def test_a_price_measured_in_one_slow_step_is_measured_again() -> None:
    economy, grown = Economy(FLAT), []
    for step in range(120):
        slow = 40.0 if step == 2 else 1.0
        levels = [0.1 * slow]
        while len(levels) < 4 and economy.level_pays(1, 0.9):
            levels.append(0.1 * slow)
        economy.took(1, 9, verify=1.0, rest=0.0)
        economy.drafted(1, 1 + len(levels), 9, levels)
        grown.append(len(levels))
    assert min(grown[3:]) == 1, "it was thought dear"
    assert grown[-20:] == [4] * 20


def test_one_slow_step_is_not_taken_for_the_price_of_drafting() -> None:
    economy = Economy(FLAT)
    for slow in [False] * 20 + [True] + [False] * 20:
        economy.took(1, 9, verify=50.0 if slow else 1.0, rest=0.0)
        economy.drafted(1, 4, 9, [30.0 if slow else 0.6, 0.2, 0.2])
        assert economy.paused == 0
        assert economy.verify(9) == pytest.approx(1.0)


def test_a_rate_is_never_below_plain_decodings() -> None:
    economy = Economy([(1, 0.5), (61, 2.0)])
    plain = 3 / interpolated(economy.times, 3)
    assert economy.plain_rate(3) == pytest.approx(plain)
    assert economy.rate(3) == pytest.approx(1.5 * plain)
    for _ in range(20):
        economy.took(3, 5, verify=1.0, rest=0.0)
        economy.drafted(3, 3, 5, [1.0])
        assert economy.rate(3) >= economy.plain_rate(3) > 0


def test_the_budget_is_where_one_more_token_costs_what_it_brings() -> None:
    economy = Economy([(1, 1.0), (101, 2.0)])
    gains = {1: 0.9, 10: 2.0, 100: 2.1}
    assert economy.best_budget(1, gains) == 10
    assert Economy([(1, 1.0), (101, 1.001)]).best_budget(1, gains) == 100
    assert Economy([(1, 1.0), (2, 3.0)]).best_budget(1, gains) == 0
    economy.level.take(0.5)
    assert economy.level_pays(1, 1.0) and not economy.level_pays(1, 0.5)


def test_timing_forwards_changes_no_generation(plain: Engine, draft: Path) -> None:
    own = auto(plain, draft, costs=False)
    chosen: dict[str, Any] = {"max_new_tokens": 16, "temperature": 1.0, "seed": 4}
    wanted = tiny.tokens(plain, PROMPTS, **chosen)
    running = own.session().start(PROMPTS, **chosen)
    for _ in running:
        before = running.state.tokens.clone(), list(running.state.host_lengths)
        assert running.state.cache is not None
        kept = running.state.cache.lengths.clone()
        times = time_forwards(own.target, 2, 30, 13)
        assert torch.equal(before[0], running.state.tokens)
        assert torch.equal(kept, running.state.cache.lengths)
    assert [n for n, _ in times] == [2, 10, 18, 26], "tokens, rows together"
    assert all(seconds > 0 for _, seconds in times)
    assert [running.new_tokens(row) for row in range(3)] == wanted


@pytest.mark.parametrize("room", [20, 64])
def test_a_short_context_is_timed_as_far_as_it_reaches(tmp_path: Path, room: int) -> None:
    config = hf.GPT2Config(
        n_embd=32, n_layer=1, n_head=4, vocab_size=60, n_positions=room, initializer_range=0.3,
        eos_token_id=None, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    target = tiny.make_model(config)
    plain = Engine(target, strategy="plain")
    folder = tiny.save_model(tiny.noisy_copy(target), tmp_path)
    own = auto(plain, folder, budget=60, costs=True)
    chosen: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 4}
    assert tiny.tokens(own, PROMPTS[0], **chosen) == tiny.tokens(plain, PROMPTS[0], **chosen)


# --- trees and texts


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("options", SIZES, ids=lambda sizes: f"budget {sizes['budget']}")
def test_trees_stay_within_depth_and_budget(
    plain: Engine, draft: Path, costs: bool, temperature: float, options: dict[str, int]
) -> None:
    own = auto(plain, draft, costs=costs, **options)
    running = own.session().start(PROMPTS, max_new_tokens=24, temperature=temperature, seed=1)
    steps = list(running)
    for one in steps:
        assert one.tree.size - 1 <= options["budget"]
        assert one.tree.depth <= options["depth"]
        assert int(one.tree.depths.max()) <= options["depth"]
    if not costs:
        assert max(one.tree.size for one in steps) == options["budget"] + 1


@pytest.mark.parametrize("kind", ["draft_model", "eagle"])
@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("costs", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_are_plain_decodings(
    plain: Engine,
    draft: Path,
    head: Path,
    kind: str,
    coupled: bool,
    costs: bool,
    temperature: float,
) -> None:
    own = auto(plain, draft if kind == "draft_model" else head, kind, costs=costs, coupled=coupled)
    prompts = [*PROMPTS, [3, 3, 8], [12, 40]]
    chosen: dict[str, Any] = {"max_new_tokens": 30, "temperature": temperature, "seed": 5}
    text = tiny.tokens(plain, prompts, eos_token_id=[], **chosen)
    ends = [text[0][3], text[1][9], text[2][15]]  # rows leave the batch one by one
    with ticking():  # costs that make it pause and go on, the same in every run
        for one in (prompts, [[4]], prompts[0]):
            wanted = tiny.tokens(plain, one, eos_token_id=ends, **chosen)
            assert tiny.tokens(own, one, eos_token_id=ends, **chosen) == wanted


def test_it_pauses_and_drafts_again_and_the_text_is_plain_decodings(
    plain: Engine, draft: Path
) -> None:
    own = auto(plain, draft, costs=True)
    chosen: dict[str, Any] = {"max_new_tokens": 60, "temperature": 1.0, "eos_token_id": []}
    drafted: list[bool] = []
    largest = mock.patch.object(Economy, "best_budget", lambda _, rows, gains: max(gains))
    with ticking(), largest, mock.patch("specdec_plugins.auto.costs._FIRST_PAUSE", 3):
        memory = own.parts.policy.memory  # type: ignore[union-attr]
        for seed in range(4):
            running = Session(own, keeps=False).start(PROMPTS, seed=seed, **chosen)
            for number, one in enumerate(running):
                drafted.append(one.tree.size > 1)
                for economy in memory.economies.values():
                    if number % 7 == 3:
                        economy.paused = max(economy.paused, 3)
            texts = [running.new_tokens(row) for row in range(3)]
            assert texts == tiny.tokens(plain, PROMPTS, seed=seed, **chosen)
    changes = sum(one != other for one, other in pairwise(drafted))
    assert changes > 6, "it neither paused nor went on"


@pytest.mark.parametrize("costs", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_turn_of_a_session_equals_a_fresh_run(
    plain: Engine, head: Path, costs: bool, temperature: float
) -> None:
    own = auto(plain, head, "eagle", costs=costs)
    session, prompts = own.session(), [list(prompt) for prompt in PROMPTS]
    chosen: dict[str, Any] = {"max_new_tokens": 9, "temperature": temperature, "seed": [1, 2, 3]}
    for turn in ([3, 9, 11], [40], [8, 8, 2, 1], []):
        prompts = [[*prompt, *turn] for prompt in prompts]
        texts = [result.token_ids for result in session.generate(prompts, **chosen)]
        assert texts == tiny.tokens(own, prompts, **chosen)
        assert texts == tiny.tokens(plain, prompts, **chosen)
        prompts = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]


def lessons(engine: Engine) -> int:
    return sum(one.steps for one in engine.parts.policy.memory.calibrations.values())  # type: ignore[union-attr]


def test_what_is_learned_is_shared_by_the_generations_of_an_engine_alone(
    plain: Engine, draft: Path
) -> None:
    own, other = auto(plain, draft, costs=False), auto(plain, draft, costs=False)
    chosen: dict[str, Any] = {"max_new_tokens": 12, "seed": 1}
    own.generate(PROMPTS, temperature=1.0, **chosen)
    own.generate(PROMPTS, temperature=0.0, **chosen)
    known = own.parts.policy.memory.calibrations  # type: ignore[union-attr]
    assert len(known) == 2, "one for each setting"
    learned = lessons(own)
    own.generate(PROMPTS, temperature=1.0, **chosen)
    assert len(known) == 2
    assert lessons(own) > learned
    assert lessons(other) == 0


def test_what_was_learned_outlives_the_engine_in_a_file(
    plain: Engine, draft: Path, tmp_path: Path
) -> None:
    file = tmp_path / "memory.json"
    first = auto(plain, draft, costs=False, memory=str(file))
    chosen: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 4}
    wanted = tiny.tokens(first, PROMPTS, **chosen)
    (known,) = first.parts.policy.memory.calibrations.values()  # type: ignore[union-attr]
    assert known.steps > 0
    again = auto(plain, draft, costs=False, memory=str(file))
    memory = again.parts.policy.memory  # type: ignore[union-attr]
    (setting,) = json.loads(file.read_text())
    read = memory.calibration(setting, COUPLED, torch.device("cpu"))
    assert torch.equal(read.theta, known.theta) and torch.equal(read.precision, known.precision)
    assert tiny.tokens(again, PROMPTS, **chosen) == wanted


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"theta": [1], "precision": []}}'])
def test_a_file_that_is_no_memory_is_refused_and_left_alone(
    plain: Engine, draft: Path, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(OptionError, match=r"policy\.memory.*other\.json.*is no memory"):
        auto(plain, draft, memory=str(file))
    assert file.read_text() == text
