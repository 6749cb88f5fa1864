"""Mistakes that were once in the code, each as the property that it broke."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from tiny import PROMPTS, VOCAB

from specdec import Component, Engine, SpecdecError, Strategy, hookimpl
from specdec.decoding.interfaces import TreeFunction
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree, Draws
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.samplers import sample
from specdec.errors import OptionError, PluginError, UnsupportedModelError
from specdec.models.hf_target import HFTarget


def test_a_list_of_processors_applies_every_one_to_every_row(plain: Engine) -> None:
    given = [
        hf.RepetitionPenaltyLogitsProcessor(1.01),
        hf.SuppressTokensLogitsProcessor(list(range(30))),
    ]
    for processors in (given, tuple(given), hf.LogitsProcessorList(given)):
        rows = tiny.tokens(plain, PROMPTS, max_new_tokens=6, logits_processor=processors)
        assert all(token >= 30 for row in rows for token in row)


def test_a_processor_that_leaves_no_token_is_told(plain: Engine) -> None:
    for value in (float("nan"), float("-inf")):

        def empty(ids: Any, scores: torch.Tensor, value: float = value) -> torch.Tensor:
            return torch.full_like(scores, value)

        with pytest.raises(OptionError, match="leaves no token"):
            plain.generate([1, 2], max_new_tokens=2, logits_processor=empty)


@pytest.mark.parametrize("temperature", [0, 1])
def test_settings_that_together_leave_no_token_are_refused(
    eagle: Engine, temperature: float
) -> None:
    every, half = list(range(VOCAB)), VOCAB // 2
    for settings in (
        {"suppress_tokens": every},
        {"logits_processor": hf.SuppressTokensLogitsProcessor(every)},
        {
            "suppress_tokens": every[:half],
            "logits_processor": hf.SuppressTokensLogitsProcessor(every[half:]),
        },
        {"suppress_tokens": every[:half], "bad_words_ids": [[token] for token in every[half:]]},
        {"begin_suppress_tokens": every},
    ):
        with pytest.raises(OptionError, match=r"leaves? no token"):
            eagle.generate(PROMPTS, max_new_tokens=2, temperature=temperature, **settings)


def test_a_score_of_plus_infinity_is_refused_where_tokens_are_sampled(eagle: Engine) -> None:
    def forced(ids: Any, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, torch.tensor([9]), float("inf"))

    settings = {"max_new_tokens": 2, "logits_processor": forced, "eos_token_id": []}
    with pytest.raises(OptionError, match=r"forced gives a score of \+inf"):
        eagle.generate(PROMPTS, temperature=1, **settings)
    assert tiny.tokens(eagle, PROMPTS, temperature=0, **settings) == [[9, 9]] * 3


def test_an_unknown_factor_behind_the_lm_head_is_refused_by_every_verifier() -> None:
    class Scaled(hf.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 3
            return output

    model = Scaled(tiny.llama_config()).double()
    for verifier in ("tree", "path"):
        with pytest.raises(UnsupportedModelError, match="lm_head"):
            Engine(model, strategy="plain", verifier=verifier)


def test_a_long_window_that_the_model_ignores_is_refused() -> None:
    config = tiny.llama_config()
    config.sliding_window = 100
    with pytest.raises(UnsupportedModelError):
        Engine(tiny.make_model(config), strategy="plain")
    assert config.sliding_window == 100, "the check puts the window back"


def test_a_session_takes_an_unrelated_prompt_longer_than_its_cache(plain: Engine) -> None:
    model = tiny.make_model(tiny.llama_config(max_position_embeddings=2048))
    engine = Engine(model, strategy="plain")
    session = engine.session()
    session.generate([1, 2, 3], max_new_tokens=4)
    long = [9, 8] * 400
    assert tiny.tokens(session, long, max_new_tokens=4) == tiny.tokens(
        engine, long, max_new_tokens=4
    )


def test_more_children_than_the_tree_says_are_left_out() -> None:
    tree = DraftTree(
        tokens=torch.tensor([[0, 1, 2, 3]]),
        parents=torch.tensor([[-1, 0, 0, 0]]),
        log_value=torch.zeros(1, 4),
        valid=torch.ones(1, 4, dtype=torch.bool),
        depth=1,
        branching=2,
    )
    assert tree.children.tolist() == [[[1, 2], [-1, -1], [-1, -1], [-1, -1]]]


def test_a_frontier_is_expanded_once() -> None:
    builder = TreeBuilder(tiny.make_state([[0]], vocab=4))
    proposal = Proposal(torch.zeros(1, 1, 4))
    sample(builder, proposal, 1)
    with pytest.raises(PluginError, match="advance"):
        sample(builder, proposal, 1)


def test_a_cut_by_drawn_tokens_is_no_sampled_tree() -> None:
    builder = TreeBuilder(tiny.make_state([[0]], vocab=4))
    sample(builder, Proposal(torch.zeros(1, 1, 4)), 1)
    tree = builder.tree()
    assert tree.draws is Draws.IID
    assert tree.limited(tree.tokens[:, 1] % 2).draws is Draws.POINT


def test_a_steps_verification_still_means_the_step_after_commit(eagle: Engine) -> None:
    generation = eagle.session().start(PROMPTS[0], max_new_tokens=12)
    for step in generation:
        root = torch.zeros(1, dtype=torch.int64)
        length = generation.state.host_lengths[0] - len(step.new_tokens[0])
        assert int(step.verification.position(root)) == length


@pytest.mark.parametrize(
    "fields",
    [
        {"return_dict_in_generate": True},
        {"output_scores": True},
        {"forced_eos_token_id": 1},
        {"max_time": -1.0},
        {"token_healing": True},
        {"num_assistant_tokens": 3},
        {"epsilon_cutoff": 5.0},
        {"update": 1},
        {"suppress_tokens": 5},
        {"stop": 5},
        {"seed": "1"},
    ],
    ids=str,
)
def test_arguments_without_effect_or_sense_are_refused(
    plain: Engine, fields: dict[str, Any]
) -> None:
    with pytest.raises(SpecdecError, match=next(iter(fields))):
        plain.generate([1, 2], max_new_tokens=2, **fields)


def test_max_length_of_a_call_beats_max_new_tokens_of_the_model() -> None:
    model = tiny.make_model()
    model.generation_config.max_new_tokens = 20
    engine = Engine(model, strategy="plain")
    assert len(tiny.tokens(engine, [1, 2, 3], max_length=6)) == 3


def ones(state: State) -> DraftTree:
    """Drafts the token 1, once."""
    return DraftTree.chain(state.root(), torch.ones(state.rows, 1, dtype=torch.int64))


class WholePlugin:
    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return [Component("whole", lambda options, target: TreeFunction(ones))]


def test_a_whole_tree_drafter_replaces_drafter_and_policy(model: Any, head: Path) -> None:
    engine = Engine(model, strategy="eagle2", drafter="whole", plugins=[WholePlugin()])
    assert engine.parts.policy is None
    assert tiny.tokens(engine, [1, 2], max_new_tokens=8) == tiny.tokens(
        engine.with_strategy("plain"), [1, 2], max_new_tokens=8
    )
    with pytest.raises(OptionError, match="takes no policy"):
        engine.with_strategy("eagle2", drafter="whole", policy="chain")


def test_a_checkpoint_given_twice_is_told(plain: Engine, head: Path) -> None:
    options = {"drafter": {"checkpoint": str(head)}}
    with pytest.raises(OptionError, match="given twice"):
        plain.with_strategy("eagle2", drafter=str(head), options=options)


def test_a_hook_that_fails_is_named() -> None:
    class Broken:
        @hookimpl
        def specdec_strategies(self) -> list[Strategy]:
            raise ImportError("no such thing")

    with pytest.raises(PluginError, match="specdec_strategies"):
        Engine(plugins=[Broken()])


def test_the_target_that_a_plugin_returns_is_the_one_that_runs(model: Any) -> None:
    class Counting(HFTarget):
        forwards = 0

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self.forwards += 1
            return super().forward(*args, **kwargs)

    class Plugin:
        @hookimpl
        def specdec_wrap_target(self, target: HFTarget) -> HFTarget:
            return Counting(target.model)

    engine = Engine(model, strategy="plain", plugins=[Plugin()])
    before = engine.target.forwards
    engine.generate([1, 2], max_new_tokens=5)
    assert engine.target.forwards == before + 5


def test_a_session_that_repeats_a_prompt_drafts_as_a_fresh_one(eagle: Engine) -> None:
    session = eagle.session()
    session.generate(PROMPTS[0], max_new_tokens=1)
    again = next(iter(session.start(PROMPTS[0], max_new_tokens=12)))
    fresh = next(iter(eagle.session().start(PROMPTS[0], max_new_tokens=12)))
    assert torch.equal(again.tree.tokens, fresh.tree.tokens)


def test_time_between_steps_is_not_the_generations(plain: Engine) -> None:
    generation = plain.session().start([1, 2], max_new_tokens=3)
    for _ in generation:
        time.sleep(0.2)
    assert generation.results()[0].stats.seconds["total"] < 0.3


def test_a_refused_call_leaves_the_session_its_prefix(eagle: Engine) -> None:
    session = eagle.session()
    first = session.generate(PROMPTS[0], max_new_tokens=8)
    with pytest.raises(SpecdecError):
        session.generate(PROMPTS[0], max_length=2)
    generation = session.start([*PROMPTS[0], *first.token_ids], max_new_tokens=4)
    assert generation.state.cached[0] > 0


def test_heads_stay_trainable(eagle: Engine) -> None:
    weight = eagle.parts.drafter.head.fc.weight
    assert not weight.is_inference()


@pytest.mark.parametrize("options", [{"choices": []}, {"choices": [[1, 0]]}], ids=str)
def test_static_trees_are_checked(plain: Engine, head: Path, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="choices"):
        plain.with_strategy("static_tree", drafter=str(head), options={"policy": options})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_children_are_sampled_above_temperature_0_alone(
    plain: Engine, head: Path, temperature: float
) -> None:
    likeliest = plain.with_strategy("static_tree", drafter=str(head))
    sampled = plain.with_strategy(
        "static_tree", drafter=str(head), options={"policy": {"sampled": True}}
    )
    trees = [
        next(iter(engine.session().start(PROMPTS[0], temperature=temperature))).tree
        for engine in (likeliest, sampled)
    ]
    assert trees[0].tokens.shape == trees[1].tokens.shape
    assert torch.equal(trees[0].tokens, trees[1].tokens) == (temperature == 0)


def test_kary_trees_are_bounded(plain: Engine, head: Path) -> None:
    options = {"policy": {"k": 16, "depth": 12}}
    with pytest.raises(OptionError, match="1024 nodes"):
        plain.with_strategy("eagle2", drafter=str(head), policy="kary_tree", options=options)


def test_a_config_without_rope_theta_means_ten_thousand() -> None:
    from specdec_plugins.eagle.rope import rope_parameters

    assert rope_parameters({**tiny.SHAPE, "rope_theta": None})["rope_theta"] == 10000.0
