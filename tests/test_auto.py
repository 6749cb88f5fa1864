"""The strategy ``auto``: what it learns, what it measures, and that neither changes a text."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPTS
from torch import Tensor

from specdec import Engine
from specdec.drafting.calibration import Calibration, Prior
from specdec.errors import OptionError
from specdec.testing.fake_clock import fake_clock
from specdec_plugins.auto.acceptance import LASTING, PRIORS

NEVER = float("-inf")
SMALL = {"depth": 5, "width": 3, "children": 4, "budget": 12}
SIZES = [
    SMALL,
    {"depth": 1, "width": 1, "children": 1, "budget": 1},
    {"depth": 2, "width": 2, "children": 100, "budget": 7},
]


def auto(plain: Engine, folder: Path, drafter: str = "draft_model", **policy: Any) -> Engine:
    """An engine; depth and budget as given unless ``size_by_cost=True``."""
    options = {"policy": {**SMALL, "size_by_cost": False, **policy}}
    own = plain.with_strategy(
        "auto", drafter=drafter, options={**options, "drafter": {"checkpoint": str(folder)}}
    )
    return own


# --- what draft scores mean


def chosen_by(scores: Tensor, prior: Prior, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choices of the model: the hits ``[M, k]`` and the log loss of the truth."""
    others = torch.full((len(scores), 1), prior.log_weight_of_others, dtype=torch.float64)
    distribution = torch.softmax(
        torch.cat([scores.double() / prior.temperature, others], dim=1), dim=1
    )
    choice = torch.multinomial(distribution, 1, generator=generator)
    hit = torch.nn.functional.one_hot(choice[:, 0], distribution.shape[1])[:, :-1].bool()
    return hit, -distribution.gather(1, choice).log().mean()


def loss(calibration: Calibration, scores: Tensor, hit: Tensor) -> float:
    taken = calibration.log_acceptance(scores).double()
    missed = torch.log1p(-taken.exp().sum(dim=1).clamp(max=1 - 1e-9))
    return -float(torch.where(hit.any(1), taken.masked_fill(~hit, 0.0).sum(1), missed).mean())


def log_scores(count: int, generator: torch.Generator, spread: float = 2.0) -> Tensor:
    return (spread * torch.randn(count, 5, generator=generator)).log_softmax(-1)[:, :4]


@pytest.mark.parametrize("start", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("truth", [Prior(0.35, -5.0), Prior(1.0, -1.0), Prior(2.0, 0.5)], ids=str)
def test_planted_parameters_are_learned_from_choices(start: Prior, truth: Prior) -> None:
    generator = torch.Generator().manual_seed(1)
    learned, prior = (Calibration(start, torch.device("cpu"), LASTING) for _ in range(2))
    for _ in range(150):
        scores = log_scores(16, generator)
        hit, _ = chosen_by(scores, truth, generator)
        learned.learn(scores, hit, torch.ones(16, dtype=torch.bool))
    scores = log_scores(4000, generator)
    hit, best = chosen_by(scores, truth, generator)
    assert loss(learned, scores, hit) < loss(prior, scores, hit)
    assert loss(learned, scores, hit) < best + 0.02
    assert float(learned.theta[0]) == pytest.approx(math.log(truth.temperature), abs=0.35)
    assert float(learned.theta[1]) == pytest.approx(truth.log_weight_of_others, abs=1.0)


def test_what_was_learned_follows_a_drafter_that_changes() -> None:
    generator, device = torch.Generator().manual_seed(2), torch.device("cpu")
    calibration = Calibration(PRIORS["greedy"], device, LASTING)
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
    one, other = (
        Calibration(PRIORS["coupled"], device, LASTING),
        Calibration(PRIORS["coupled"], device, LASTING),
    )
    scores = torch.tensor([[-0.5, -1.0, NEVER], [-3.0, -4.0, -5.0]])
    hit = torch.tensor([[False, False, True], [True, False, False]])
    one.learn(scores, hit, torch.tensor([True, False]))
    other.learn(scores[:1, :2], torch.zeros(1, 2, dtype=torch.bool), torch.tensor([True]))
    torch.testing.assert_close(one.theta, other.theta)
    torch.testing.assert_close(one.precision, other.precision)
    still = Calibration(PRIORS["coupled"], device, LASTING)
    before = still.theta.clone()
    still.learn(scores, hit, torch.tensor([False, False]))
    assert torch.equal(still.theta, before)


def test_acceptance_rises_with_the_score_and_adds_up_to_less_than_1() -> None:
    scores = torch.tensor(
        [[0.0, -1.0, -2.5, -9.0], [-0.1, -0.1, NEVER, NEVER], [NEVER] * 4, [3.0, 2.0, 1.0, -60.0]]
    )
    for prior in (*PRIORS.values(), Prior(5.0, 2.0)):
        log_p = Calibration(prior, torch.device("cpu"), LASTING).log_acceptance(scores)
        assert log_p.dtype == torch.float32 and log_p.shape == scores.shape
        assert bool((log_p[:, :-1] >= log_p[:, 1:]).all())
        assert log_p.isneginf().tolist() == scores.isneginf().tolist()
        assert bool((log_p.exp().sum(dim=1) < 1 + 1e-6).all())
        assert float(log_p[0].exp().sum()) < 1


@pytest.mark.parametrize("spread", [0.0, 2.0, 50.0])
def test_noise_does_not_blow_up_what_is_learned(spread: float) -> None:
    generator = torch.Generator().manual_seed(3)
    calibration = Calibration(PRIORS["coupled"], torch.device("cpu"), LASTING)
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


# --- timing


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("options", SIZES, ids=lambda sizes: f"budget {sizes['budget']}")
def test_trees_stay_within_depth_and_budget(
    plain: Engine, draft: Path, costs: bool, temperature: float, options: dict[str, int]
) -> None:
    own = auto(plain, draft, size_by_cost=costs, **options)
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
@pytest.mark.parametrize("costs", [False, True])
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
    own = auto(
        plain, draft if kind == "draft_model" else head, kind, size_by_cost=costs, coupled=coupled
    )
    prompts = [*PROMPTS, [3, 3, 8], [12, 40]]
    chosen: dict[str, Any] = {"max_new_tokens": 30, "temperature": temperature, "seed": 5}
    text = tiny.tokens(plain, prompts, eos_token_id=[], **chosen)
    ends = [text[0][3], text[1][9], text[2][15]]  # rows leave the batch one by one
    with fake_clock():  # costs that make it pause and go on, the same in every run
        for one in (prompts, [[4]], prompts[0]):
            wanted = tiny.tokens(plain, one, eos_token_id=ends, **chosen)
            assert tiny.tokens(own, one, eos_token_id=ends, **chosen) == wanted


def test_it_pauses_and_drafts_again_and_the_text_is_plain_decodings(
    plain: Engine, draft: Path
) -> None:
    own = auto(plain, draft, size_by_cost=True)
    chosen: dict[str, Any] = {"max_new_tokens": 60, "temperature": 1.0, "eos_token_id": []}
    drafted: list[bool] = []
    with fake_clock():
        for seed in range(8):
            running = own.start(PROMPTS, seed=seed, **chosen)
            drafted += [one.tree.size > 1 for one in running]
            texts = [running.new_tokens(row) for row in range(3)]
            assert texts == tiny.tokens(plain, PROMPTS, seed=seed, **chosen)
    changes = sum(one != other for one, other in pairwise(drafted))
    assert changes > 4, "it neither paused nor went on"


@pytest.mark.parametrize("costs", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_turn_of_a_session_equals_a_fresh_run(
    plain: Engine, head: Path, costs: bool, temperature: float
) -> None:
    own = auto(plain, head, "eagle", size_by_cost=costs)
    session, prompts = own.session(), [list(prompt) for prompt in PROMPTS]
    chosen: dict[str, Any] = {"max_new_tokens": 9, "temperature": temperature, "seed": [1, 2, 3]}
    for turn in ([3, 9, 11], [40], [8, 8, 2, 1], []):
        prompts = [[*prompt, *turn] for prompt in prompts]
        texts = [result.token_ids for result in session.generate(prompts, **chosen)]
        assert texts == tiny.tokens(own, prompts, **chosen)
        assert texts == tiny.tokens(plain, prompts, **chosen)
        prompts = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]


def updates(engine: Engine) -> int:
    return sum(one.steps for one in engine.parts.policy.memory.calibrations.values())  # type: ignore[union-attr]


def test_what_is_learned_is_shared_by_the_generations_of_an_engine_alone(
    plain: Engine, draft: Path
) -> None:
    own, other = auto(plain, draft), auto(plain, draft)
    chosen: dict[str, Any] = {"max_new_tokens": 12, "seed": 1}
    own.generate(PROMPTS, temperature=1.0, **chosen)
    own.generate(PROMPTS, temperature=0.0, **chosen)
    known = own.parts.policy.memory.calibrations  # type: ignore[union-attr]
    assert len(known) == 2, "one for each setting"
    learned = updates(own)
    own.generate(PROMPTS, temperature=1.0, **chosen)
    assert len(known) == 2
    assert updates(own) > learned
    assert updates(other) == 0


def test_what_was_learned_outlives_the_engine_in_a_file(
    plain: Engine, draft: Path, tmp_path: Path
) -> None:
    file = tmp_path / "memory.json"
    first = auto(plain, draft, calibration_file=str(file))
    chosen: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 4}
    wanted = tiny.tokens(first, PROMPTS, **chosen)
    (known,) = first.parts.policy.memory.calibrations.values()  # type: ignore[union-attr]
    assert known.steps > 0
    again = auto(plain, draft, calibration_file=str(file))
    memory = again.parts.policy.memory  # type: ignore[union-attr]
    (setting,) = json.loads(file.read_text())
    read = memory.calibration(setting, PRIORS["coupled"], torch.device("cpu"))
    assert torch.equal(read.theta, known.theta) and torch.equal(read.precision, known.precision)
    assert tiny.tokens(again, PROMPTS, **chosen) == wanted


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"theta": [1], "precision": []}}'])
def test_a_file_that_is_no_memory_is_refused_and_left_alone(
    plain: Engine, draft: Path, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    says = r"policy\.calibration_file.*other\.json.*was not written by"
    with pytest.raises(OptionError, match=says):
        auto(plain, draft, calibration_file=str(file))
    assert file.read_text() == text


@pytest.mark.parametrize("theta", [[float("nan"), 0.0], [-800.0, 0.0], [0.0, float("inf")]])
def test_a_memory_of_numbers_that_no_fit_gives_is_refused(
    plain: Engine, draft: Path, tmp_path: Path, theta: list[float]
) -> None:
    file = tmp_path / "memory.json"
    known = {"theta": theta, "precision": [[10.0, 0.0], [0.0, 1.0]], "steps": 3}
    file.write_text(json.dumps({"greedy, coupled=True": known}))
    with pytest.raises(OptionError, match="was not written by"):
        auto(plain, draft, calibration_file=str(file))


@pytest.mark.parametrize("instead", ["nothing", "a file"])
def test_an_answer_is_not_lost_where_the_memory_cannot_be_written(
    plain: Engine, draft: Path, tmp_path: Path, instead: str
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    own = auto(plain, draft, calibration_file=str(folder / "memory.json"))
    folder.rmdir()
    if instead == "a file":
        folder.write_text("")
    with pytest.warns(UserWarning, match="cannot be written"):
        found = tiny.tokens(own, PROMPTS[0], max_new_tokens=6)
    assert found == tiny.tokens(plain, PROMPTS[0], max_new_tokens=6)
    assert not folder.is_dir(), "a folder that was unmounted, say, is not made anew"
