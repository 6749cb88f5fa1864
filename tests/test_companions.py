"""Companions: they ride along in a verification, change nothing of it, and read what they see."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from specdec import Component, Engine, Strategy, hookimpl
from specdec.decoding.companions import Companions
from specdec.decoding.interfaces import Features, TreeDrafter, TreeProposer
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.decoding.verifiers import TreeVerifier
from specdec.errors import PluginError
from specdec.models.hf_target import HFTarget

DEPTH = 3


class Proposer(TreeProposer):
    """A chain of arbitrary tokens, and arbitrary companions below any of its nodes."""

    def __init__(self, number: int, state: State) -> None:
        self._random, self._vocab = random.Random(number), state.vocab_size
        self.count = self._random.randrange(1, 9)

    def tree(self, state: State) -> DraftTree:
        def drawn(width: int) -> torch.Tensor:
            rows = [[self._random.randrange(self._vocab) for _ in range(width)] for _ in roots]
            return torch.tensor(rows)

        roots = state.root()
        chain = DraftTree.chain(roots, drawn(DEPTH))
        depths, parents = list(range(chain.size)), []
        for _ in range(self.count):
            parents.append(self._random.randrange(len(depths)))
            depths.append(depths[parents[-1]] + 1)
        above = torch.tensor(parents).expand(len(roots), -1)
        return replace(chain, companions=Companions(drawn(self.count), above, max(depths)))

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Nothing is kept by row."""


class Drafter(TreeDrafter):
    number = 0

    def start(self, state: State, features: Features) -> Proposer:
        return Proposer(self.number, state)


class Without(TreeVerifier):
    """Reads the tree alone."""

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        return super().verify(target, state, replace(tree, companions=None))


class Plugin:
    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return [Component("random_companions", lambda options, target: Drafter())]

    @hookimpl
    def specdec_verifiers(self) -> list[Component]:
        return [Component("without", lambda options: Without())]

    @hookimpl
    def specdec_strategies(self) -> list[Strategy]:
        return [Strategy("companions", drafter="random_companions")]


def windowed() -> Any:
    """A model whose layers see a few tokens alone."""
    shape = tiny.llama_config().to_dict()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: shape[name] for name in (*names, "num_key_value_heads", "vocab_size")}
    return tiny.make_model(hf.MistralConfig(**sizes, sliding_window=4))


@pytest.fixture(scope="module", params=["full attention", "a window"])
def plain(request: pytest.FixtureRequest) -> Engine:
    model = tiny.make_model() if request.param == "full attention" else windowed()
    return Engine(model, strategy="plain", plugins=[Plugin()])


@pytest.fixture(scope="module")
def engine(plain: Engine) -> Engine:
    return plain.with_strategy("companions")


def numbered(engine: Engine, number: int) -> Engine:
    """The engine whose companions are those of a number."""
    engine.parts.drafter.number = number  # type: ignore[union-attr]
    return engine


def steps(engine: Engine, prompts: Any, **settings: Any) -> tuple[Any, list[Step]]:
    running = engine.start(prompts, eos_token_id=[], **settings)
    return running, list(running)


@examples(4, many=60)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0]))
def test_companions_never_change_what_is_committed(
    plain: Engine, engine: Engine, number: int, temperature: float
) -> None:
    settings = {"max_new_tokens": 7, "temperature": temperature, "seed": number}
    ours = numbered(engine, number).generate(tiny.PROMPTS, **settings)
    theirs = plain.generate(tiny.PROMPTS, **settings)
    assert [each.token_ids for each in ours] == [each.token_ids for each in theirs]


@pytest.mark.parametrize("verifier", ["tree", "path"])
def test_the_output_of_a_companion_is_the_models_own_forward_over_what_it_sees(
    engine: Engine, verifier: str
) -> None:
    engine = numbered(engine.with_strategy("companions", verifier=verifier), 5)
    running = engine.start(tiny.PROMPTS, max_new_tokens=6, eos_token_id=[])
    checked = 0
    for step in running:
        tree, beside = step.tree, step.tree.companions
        if beside is None:
            continue
        with torch.inference_mode():
            found = engine.target.logits(step.verification.companions.last)
        roots = step.verification.root_position().tolist()
        for row, root in enumerate(roots):
            texts = [running.state.tokens[row, : root + 1].tolist()]
            for node in range(1, tree.size):
                above = int(tree.parents[row, node])
                texts.append([*texts[above], int(tree.tokens[row, node])])
            for own, above in zip(beside.tokens[row].tolist(), beside.parents[row], strict=True):
                texts.append([*texts[int(above)], own])
            for companion, text in enumerate(texts[tree.size :]):
                with torch.inference_mode():
                    due = engine.target.model(torch.tensor([text])).logits[0, -1]
                torch.testing.assert_close(found[row, companion], due, rtol=0, atol=1e-9)
                checked += 1
    assert checked > 20


def test_scores_are_those_of_the_tree_alone(engine: Engine) -> None:
    _, own = steps(numbered(engine, 3), tiny.PROMPTS, max_new_tokens=4, seed=1)
    read = engine.with_strategy("companions", verifier="without")
    _, other = steps(numbered(read, 3), tiny.PROMPTS, max_new_tokens=4, seed=1)
    for one, two in zip(own, other, strict=True):
        assert one.verification.logits.shape == (*one.tree.tokens.shape, engine.target.vocab_size)
        torch.testing.assert_close(
            one.verification.logits, two.verification.logits, rtol=0, atol=1e-9
        )


def test_a_verification_without_companions_says_so(engine: Engine) -> None:
    unread = numbered(engine.with_strategy("companions", verifier="without"), 1)
    _, (step, *_) = steps(unread, [5, 9, 1], max_new_tokens=4)
    with pytest.raises(PluginError, match=r"no companions.*with_companions"):
        _ = step.verification.companions


def test_a_tree_without_companions_is_read_as_it_is() -> None:
    tree = DraftTree.root(torch.tensor([3, 4]))
    assert tree.with_companions is tree
