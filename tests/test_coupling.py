"""Coupled drafting: what it ranks first, where it is refused, and what stays uncoupled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from examples import examples
from specdec import Engine
from specdec.decoding.draft_phase import DraftPhase
from specdec.decoding.proposal import Proposal
from specdec.decoding.randomness import Key, KeyedRandomness, Randomness, Stream
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.coupling import couple
from specdec.errors import OptionError
from specdec.testing import Subject
from specdec.testing.case_strategies import prompts, tables
from specdec.testing.cases import Case
from specdec.testing.enumeration import EnumeratedRandomness

CHAIN = {"policy": {"depth": 3, "width": 1, "children": 1, "size_by_cost": False}}
SMALL = {"depth": 5, "width": 3, "children": 4, "budget": 12, "size_by_cost": False}


@pytest.fixture(scope="module")
def chain() -> Subject:
    """One draft token a level: whatever is ranked second is not there."""
    return Subject("auto", drafter="table", options=CHAIN)


@pytest.fixture(scope="module")
def auto(plain: Engine, draft: Path) -> Engine:
    """``auto`` with the draft model, without costs."""
    name = "eagle2+draft_model"
    return tiny.engine(plain, name, draft, strategy="auto", options={"policy": SMALL})


@st.composite
def agreeing(draw: Any) -> Case:
    """Examples whose draft distribution is the target's, under every warp that drafts see too."""
    size = draw(st.integers(2, 6))
    table = draw(tables(size))
    chosen: dict[str, Any] = {"max_new_tokens": 9, "eos_token_id": []}
    chosen["temperature"] = draw(st.sampled_from([1.0, 0.5, 3.0]))
    warps = {
        "top_k": st.integers(1, size),
        "top_p": st.sampled_from([0.9, 0.5]),
        "min_p": st.sampled_from([0.05, 0.3]),
    }
    for name in draw(st.lists(st.sampled_from(sorted(warps)), unique=True, max_size=3)):
        chosen[name] = draw(warps[name])
    if penalty := draw(st.sampled_from([None, 1.5, 0.7])):
        chosen["repetition_penalty"] = penalty
    return Case(table, table, draw(prompts(size)), chosen, draw(st.integers(0, 99)))


@examples(20, many=100)
@given(case=agreeing())
def test_the_token_that_plain_decoding_draws_is_ranked_first_where_q_is_p(
    chain: Subject, case: Case
) -> None:
    running = chain.of(case).session().start(case.rows, seed=case.seed, **case.settings)
    for step in running:
        assert step.accepted == step.tried
        assert sum(step.tried) > 0 or running.state.finished
    plain = chain.plain(case).generate(case.rows, seed=case.seed, **case.settings)
    assert [running.new_tokens(row) for row in range(len(case.rows))] == [
        result.token_ids for result in plain
    ]


def state(rows: int = 3, randomness: Randomness | None = None, greedy: bool = False) -> State:
    prompts = [[1, 2, 3], [4], [5, 6]][:rows]
    return tiny.make_state(prompts, vocab=6, randomness=randomness, greedy=greedy)


def test_every_row_and_level_has_the_noise_of_its_own_position() -> None:
    own, logits = state(), torch.randn(3, 1, 6, dtype=torch.float64)
    builder = TreeBuilder(own)
    vocabulary = torch.arange(6)
    for depth in range(3):
        wide = logits.expand(-1, builder.frontier.width, -1)
        scores = couple(builder, Proposal(wide)).logits
        key = Key(Stream.TARGET, torch.tensor([3, 1, 2]) + depth)
        noise = own.randomness.exponential(key, vocabulary)
        assert noise is not None
        due = wide.log_softmax(-1) - noise.log()[:, None]
        torch.testing.assert_close(scores, due)
        drawn = own.randomness.categorical(_distribution(logits[:, 0]), key)
        assert torch.equal(scores.argmax(-1)[:, 0], drawn)
        tokens = scores.topk(2, dim=-1).indices.flatten(1)
        rows = torch.arange(builder.frontier.width).repeat_interleave(2)
        builder.add(tokens, rows, torch.zeros_like(tokens).float(), branching=2)
        builder.advance_best(2)


def _distribution(logits: Tensor) -> Any:
    from specdec.distribution import Distribution

    return Distribution.of(logits)


def test_an_abstaining_row_stays_without_an_opinion() -> None:
    logits = torch.randn(3, 1, 6)
    logits[1] = float("-inf")
    scores = couple(TreeBuilder(state()), Proposal(logits)).logits
    assert bool((scores[1] == float("-inf")).all())
    assert not bool(scores[[0, 2]].isinf().any())


def test_a_distribution_over_some_tokens_of_each_node_gives_the_others_no_score() -> None:
    tokens = torch.tensor([1, 4]).expand(3, 1, 2)
    scores = couple(TreeBuilder(state()), Proposal(torch.randn(3, 1, 2), tokens)).logits
    assert scores.shape == (3, 1, 6)
    known = [[False, True, False, False, True, False]] * 3
    assert (scores > float("-inf")).any(dim=1).tolist() == known


def test_at_temperature_0_and_without_noise_nothing_is_shifted() -> None:
    proposal = Proposal(torch.randn(3, 1, 6))
    assert couple(TreeBuilder(state(greedy=True)), proposal) is proposal
    unknown = EnumeratedRandomness([{}])
    same = couple(TreeBuilder(state(randomness=unknown)), proposal)
    torch.testing.assert_close(same.logits, proposal.log_q)


@pytest.mark.parametrize("acceptor", ["rejection", "typical"])
def test_coupled_drafts_are_refused_with_an_acceptor_that_draws_otherwise(
    plain: Engine, head: Path, acceptor: str
) -> None:
    with pytest.raises(OptionError, match=f"'auto'.*coupled.*'{acceptor}'.*'match'"):
        plain.with_strategy("auto", drafter=head, acceptor=acceptor)
    with pytest.raises(OptionError, match="eagle2"):
        plain.with_strategy("eagle2", drafter=head, policy="auto", acceptor=acceptor)
    options = {"policy": {"coupled": True}}
    with pytest.raises(OptionError, match=f"'chain'.*'{acceptor}'.*'match'"):
        plain.with_strategy("chain", drafter=head, acceptor=acceptor, options=options)
    plain.with_strategy("chain", drafter=head, acceptor=acceptor)
    free = {"policy": {"coupled": False, "calibrated": False, "size_by_cost": False}}
    plain.with_strategy("auto", drafter=head, acceptor=acceptor, options=free)
    for learns in ({"calibrated": True}, {"size_by_cost": True}):
        options = {"policy": {**free["policy"], **learns}}
        with pytest.raises(OptionError, match=f"'auto'.*'{acceptor}'.*'match'"):
            plain.with_strategy("auto", drafter=head, acceptor=acceptor, options=options)


@contextmanager
def looks() -> Iterator[list[Stream]]:
    """The streams whose noise is asked for while trees are drafted, in any way."""
    seen: list[Stream] = []
    drafting = False
    tree = DraftPhase.tree

    def drafted(self: DraftPhase) -> DraftTree:
        nonlocal drafting
        drafting = True
        try:
            return tree(self)
        finally:
            drafting = False

    def watched(name: str) -> Any:
        draw = getattr(KeyedRandomness, name)

        def drawn(self: KeyedRandomness, *given: Any, **more: Any) -> Any:
            if drafting:
                seen.extend(each.stream for each in given if isinstance(each, Key))
            return draw(self, *given, **more)

        return mock.patch.object(KeyedRandomness, name, drawn)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(DraftPhase, "tree", drafted))
        for name in ("categorical", "categorical_ahead", "bernoulli", "exponential"):
            stack.enter_context(watched(name))
        yield seen


@pytest.mark.parametrize("name", ["eagle2", "static_tree", "chain", "eagle2+draft_model"])
def test_the_published_strategies_look_at_no_noise_while_they_draft(
    plain: Engine, head: Path, draft: Path, name: str
) -> None:
    own = tiny.engine(plain, name, head if tiny.needs_head(name) else draft)
    with looks() as seen:
        tiny.tokens(own, tiny.PROMPTS, temperature=1.0, seed=1, max_new_tokens=12)
    assert seen == []


def test_auto_looks_at_the_targets_noise_alone_and_not_if_coupling_is_off(auto: Engine) -> None:
    chosen: dict[str, Any] = {"temperature": 1.0, "seed": 1, "max_new_tokens": 12}
    with looks() as seen:
        tiny.tokens(auto, tiny.PROMPTS, **chosen)
    assert set(seen) == {Stream.TARGET}
    options = {"policy": {**SMALL, "coupled": False}, "drafter": auto.selection.options["drafter"]}
    off = auto.with_strategy("auto", drafter="draft_model", options=options)
    with looks() as seen:
        tiny.tokens(off, tiny.PROMPTS, **chosen)
    assert seen == []


def test_the_first_tree_of_eagle2_is_that_of_any_seed(dynamic: Engine, auto: Engine) -> None:
    def first(own: Engine, seed: int) -> list[list[int]]:
        running = own.session().start(tiny.PROMPTS[:1], temperature=1.0, seed=seed)
        return next(iter(running)).tree.tokens.tolist()

    assert len({str(first(dynamic, seed)) for seed in range(6)}) == 1
    assert len({str(first(auto, seed)) for seed in range(6)}) > 1


def test_drafts_coupled_to_the_wrong_position_are_as_exact_and_accepted_less(
    plain: Engine, auto: Engine
) -> None:
    chosen: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 40, "eos_token_id": []}

    def run(own: Engine) -> tuple[list[list[int]], float]:
        results = own.generate(tiny.PROMPTS, seed=3, **chosen)
        return [result.token_ids for result in results], tiny.mean_tau(results)

    class RootsNoise(Key):
        def __init__(self, stream: Stream, position: Tensor) -> None:
            super().__init__(stream, position * 0)

    with mock.patch("specdec.drafting.coupling.Key", RootsNoise):
        wrong, slow = run(auto)
    right, fast = run(auto)
    assert wrong == right == run(plain)[0]
    assert slow < 0.8 * fast


def test_coupled_drafts_are_accepted_more_often_at_temperature_1(
    dynamic: Engine, auto: Engine
) -> None:
    chosen: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 40, "eos_token_id": []}
    taus = [tiny.mean_tau(own.generate(tiny.PROMPTS, seed=3, **chosen)) for own in (dynamic, auto)]
    assert taus[1] > 1.2 * taus[0]


@pytest.mark.parametrize(
    "warp", [{"eta_cutoff": 0.01}, {"top_h": 0.5}, {"typical_p": 0.9}], ids=str
)
def test_a_row_without_drafts_is_no_trouble_for_any_warp(
    plain: Engine, head: Path, warp: dict[str, float]
) -> None:
    """An EAGLE head has nothing to say after a prompt of one token."""
    own = plain.with_strategy("auto", drafter=head, options={"policy": {"size_by_cost": False}})
    chosen: dict[str, Any] = {"temperature": 0.8, "max_new_tokens": 8, "seed": 3, **warp}
    prompts = [[5, 6, 7], [4]]
    assert tiny.tokens(own, prompts, **chosen) == tiny.tokens(plain, prompts, **chosen)
