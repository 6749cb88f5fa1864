"""Draft vocabularies: which tokens are drafted, with which scores, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import PROMPTS, VOCAB

from specdec import Engine
from specdec.decoding.proposal import Proposal
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.coupling import couple
from specdec.drafting.draft_vocabulary import draft_vocabulary
from specdec.drafting.projections import lm_head_of
from specdec.drafting.samplers import sample
from specdec.errors import CheckpointError, OptionError, SpecdecError
from specdec.models.hf_target import HFTarget
from specdec.request.generation_config import resolve
from specdec.request.logits_processors import Processors
from specdec.request.processor_stages import Stage
from specdec.testing.tiny_models import CONFIGS

DRAFTERS = ["eagle2", "eagle2+draft_model", "auto", "chain", "draft_model"]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of every other token, the last ones first."""
    path = tmp_path_factory.mktemp("vocabulary") / "odd.json"
    path.write_text(json.dumps(list(range(1, VOCAB, 2))[::-1]))
    return path


def limited(plain: Engine, name: str, checkpoint: Path, vocabulary: Any, **changes: Any) -> Engine:
    """The strategy ``name`` with a draft vocabulary."""
    options = {**changes.pop("options", tiny.STRATEGIES[name].get("options", {}))}
    arguments = {**tiny.STRATEGIES[name], **changes}
    options["drafter"] = {"checkpoint": str(checkpoint), "vocabulary": vocabulary}
    return plain.with_strategy(**{**arguments, "options": options})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", DRAFTERS)
def test_only_its_tokens_are_drafted_and_the_text_is_plain_decodings(
    plain: Engine, head: Path, draft: Path, listed: Path, name: str, temperature: float
) -> None:
    checkpoint = head if tiny.needs_head(name) else draft
    own = limited(plain, name, checkpoint, str(listed))
    settings: dict[str, Any] = {"max_new_tokens": 30, "eos_token_id": [], "seed": 3}
    running = own.session().start(PROMPTS, temperature=temperature, **settings)
    drafted, accepted = set(), 0
    for step in running:
        drafted |= set(step.tree.tokens[:, 1:][step.tree.valid[:, 1:]].tolist())
        accepted += sum(step.accepted)
    assert drafted and drafted <= set(range(1, VOCAB, 2))
    assert accepted > 0
    wanted = tiny.tokens(plain, PROMPTS, temperature=temperature, **settings)
    assert [running.new_tokens(row) for row in range(len(PROMPTS))] == wanted
    assert {token % 2 for row in wanted for token in row} == {0, 1}


@pytest.mark.parametrize("name", ["eagle2", "draft_model"])
def test_its_logits_are_those_of_the_whole_vocabulary_at_its_tokens(
    plain: Engine, head: Path, draft: Path, listed: Path, name: str
) -> None:
    checkpoint = head if tiny.needs_head(name) else draft
    whole: Any = tiny.engine(plain, name, checkpoint).parts.drafter
    outputs = torch.randn(2, 3, 32, dtype=torch.float64)
    for vocabulary in (str(listed), 1, 17, VOCAB):
        part: Any = limited(plain, name, checkpoint, vocabulary).parts.drafter
        due = whole.logits_at(outputs, None)[..., part.vocabulary]
        torch.testing.assert_close(part.logits_at(outputs, None), due)
    assert part.vocabulary.tolist() == list(range(VOCAB))


@pytest.mark.parametrize("name", ["eagle2", "auto", "draft_model"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_with_all_tokens_in_it_trees_are_those_without(
    plain: Engine, head: Path, draft: Path, name: str, temperature: float
) -> None:
    checkpoint = head if tiny.needs_head(name) else draft
    settings: dict[str, Any] = {"temperature": temperature, "seed": 5, "max_new_tokens": 20}
    trees = []
    for vocabulary in (None, VOCAB):
        own = limited(plain, name, checkpoint, vocabulary)
        trees.append([s.tree.tokens.tolist() for s in tiny.steps(own, PROMPTS, **settings)])
    assert trees[0] == trees[1]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_lm_head_gives_its_rows(config: str) -> None:
    """Tied ones, and those whose logits the architecture caps or scales."""
    target = HFTarget(tiny.make_model(CONFIGS[config]()))
    tokens = torch.tensor([3, 8, 41])
    hidden = torch.randn(1, 2, 32, dtype=torch.float64)
    part = target.logits(hidden, lm_head_of(target, tokens, torch.float64))
    torch.testing.assert_close(part, target.logits(hidden)[..., tokens])


def test_a_bias_of_the_lm_head_goes_with_its_rows() -> None:
    model = tiny.make_model()
    model.lm_head.bias = torch.nn.Parameter(torch.randn(VOCAB, dtype=torch.float64))
    target, tokens = HFTarget(model), torch.tensor([0, 59])
    hidden = torch.randn(1, 2, 32, dtype=torch.float64)
    part = target.logits(hidden, lm_head_of(target, tokens, torch.float64))
    torch.testing.assert_close(part, target.logits(hidden)[..., tokens])


@given(tokens=st.sets(st.integers(0, 5), min_size=1), seed=st.integers(0, 99))
def test_coupled_scores_of_a_part_are_those_of_the_whole_up_to_one_number(
    tokens: set[int], seed: int
) -> None:
    ids = torch.tensor(sorted(tokens))
    state = tiny.make_state([[1, 2, 3], [4]], vocab=6)
    logits = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(seed)).double()
    whole = couple(TreeBuilder(state), Proposal(logits)).logits[..., ids]
    part = couple(TreeBuilder(state), Proposal(logits[..., ids], ids))
    assert part.token_ids is ids
    shift = whole - part.logits
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift))


@pytest.mark.parametrize(
    ("settings", "whole"),
    [
        ({"temperature": 0.7, "top_k": 3, "top_p": 0.9, "min_p": 0.01}, False),
        ({"temperature": 1.0, "repetition_penalty": 1.3}, True),
        ({"temperature": 1.0, "suppress_tokens": [1]}, True),
        ({"temperature": 0.0, "suppress_tokens": [1]}, True),
        ({"temperature": 1.0, "bad_words_ids": [[1]]}, False),
    ],
    ids=str,
)
def test_processors_that_look_scores_up_by_token_see_the_whole_vocabulary(
    plain: Engine, settings: dict[str, Any], whole: bool
) -> None:
    sampling = resolve(plain.generation_config, settings, default_new_tokens=9)
    state = tiny.make_state([[1, 2, 3], [4]])
    state.processors = sampling.processors([3, 1], torch.device("cpu"))
    ids = torch.tensor([1, 4, 30])
    guess = couple(TreeBuilder(state), Proposal(torch.randn(2, 1, 3), ids))
    assert guess.logits.shape[-1] == (VOCAB if whole else 3)
    log_q, tokens = guess.top(3)
    due = {4, 30} if "suppress_tokens" in settings else {1, 4, 30}
    assert set(tokens[log_q > float("-inf")].tolist()) <= due


def test_a_processor_of_unknown_type_is_one_that_looks_scores_up_by_token() -> None:
    own = Stage.of(lambda tokens, scores: scores)  # type: ignore[arg-type]
    assert own.by_token
    assert not Processors([own], [], greedy=True).draft_by_token  # drafts do not meet it


def test_sampled_drafts_have_no_chance_outside() -> None:
    state = tiny.make_state([[1, 2, 3], [4]], vocab=6)
    builder, ids = TreeBuilder(state), torch.tensor([1, 4])
    sample(builder, Proposal(torch.randn(2, 1, 2, dtype=torch.float64), ids), 3)
    distribution = builder.tree().sampled_from
    assert distribution is not None
    inside = distribution.q[:, 0, ids]
    torch.testing.assert_close(inside.sum(-1), torch.ones(2, dtype=torch.float64))
    assert bool((inside > 0).all())


FILES: list[tuple[str, type[SpecdecError], str]] = [
    ("[]", OptionError, "lists no token"),
    ("[3, 60]", OptionError, "lists 60, but the target model's tokens are 0 to 59"),
    ("[-1]", OptionError, "lists -1"),
    ("[3, 5, 3]", OptionError, "lists 3 twice"),
    ("[3, true]", CheckpointError, "must hold a list of token ids"),
    ("[3.0]", CheckpointError, "must hold a list of token ids"),
    ('{"3": 1}', CheckpointError, "must hold a list of token ids"),
    ("3, 4", CheckpointError, "is no JSON"),
]


@pytest.mark.parametrize(("text", "error", "says"), FILES, ids=[text for text, _, _ in FILES])
def test_a_file_that_is_no_vocabulary_of_the_target_is_refused(
    plain: Engine, tmp_path: Path, text: str, error: type[SpecdecError], says: str
) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(error, match=says):
        draft_vocabulary(str(path), plain.target)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (61, OptionError, "vocabulary=61: the target model has 60 tokens; give at most as many"),
        (0, OptionError, "drafter.vocabulary"),
        (True, OptionError, "drafter.vocabulary"),
        (2.5, OptionError, "drafter.vocabulary"),
        ("nowhere.json", CheckpointError, "nowhere.json cannot be read.*a number n"),
    ],
)
@pytest.mark.parametrize("name", ["eagle2", "draft_model"])
def test_what_is_no_vocabulary_is_refused(
    plain: Engine, head: Path, draft: Path, name: str, given: Any, error: Any, says: str
) -> None:
    with pytest.raises(error, match=says):
        limited(plain, name, head if tiny.needs_head(name) else draft, given)
