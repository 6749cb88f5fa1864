"""Losslessness as an equation: the exact distribution of one step equals the target's to 1e-12.

By induction over committed prefixes that is the distribution of the whole text.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import exact
import pytest
import torch
from exact import Draft, Table
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from specdec.decoding.acceptors import Match, Rejection
from specdec.decoding.proposal import Proposal
from specdec.decoding.tree import DraftTree, Draws, label
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.expansion import grow_level
from specdec.drafting.reranking import top_by_value as rerank
from specdec.drafting.samplers import sample, sample_without_replacement
from specdec.testing.enumerated_distributions import difference
from specdec_plugins.sampling.typical import Typical, TypicalOptions

PRECISION = 1e-12


def table(seed: int, size: int, depth: int, zeros: bool = False) -> Table:
    """Random distributions for every path up to ``depth``, skewed, with zeros if asked for."""
    generator = torch.Generator().manual_seed(seed)
    distributions = {}
    for length in range(depth + 1):
        for path in product(range(size), repeat=length):
            weights = torch.rand(size, generator=generator, dtype=torch.float64) ** 3 + 1e-3
            if zeros:
                weights[torch.randint(size, (1,), generator=generator)] = 0.0
            distributions[path] = weights / weights.sum()
    return distributions


def proposal(builder: TreeBuilder, q: Table) -> Proposal:
    frontier = builder.frontier
    logits = [
        torch.stack([q[tuple(frontier.path(row, i)[1:])] for i in range(frontier.width)])
        for row in range(builder.state.rows)
    ]
    return Proposal(torch.stack(logits).log())


def drawn(how: Any, q: Table, widths: list[int]) -> Draft:
    """A tree of sampled drafts: ``widths[d]`` draws below every node of level d."""

    def draft(builder: TreeBuilder) -> DraftTree:
        for width in widths:
            how(builder, proposal(builder, q), width)
            builder.advance(torch.arange(builder.frontier.width * width))
        return builder.tree()

    return draft


def ranked(q: Table, k: int, depth: int, budget: int = 99) -> Draft:
    """EAGLE-2's tree on the distributions q."""

    def draft(builder: TreeBuilder) -> DraftTree:
        for _ in range(depth):
            grow_level(builder, proposal(builder, q), k)
            builder.advance_best(k)
        return rerank(builder, budget)

    return draft


def gap(draft: Draft, acceptor: Any, p: Table, depth: int) -> float:
    """How far the step's distribution is from the target's, over the first ``depth + 1`` tokens."""
    distribution = exact.step_distribution(draft, acceptor, p, depth + 1)
    assert sum(distribution.values()) == pytest.approx(1, abs=1e-9)
    return difference(distribution, exact.target_distribution(p, depth + 1))[0]


seeds = st.integers(0, 10**6)
few = examples(4, many=20)


@pytest.mark.parametrize("acceptor", [Match(), Rejection()], ids=["match", "rejection"])
class TestBothAcceptorsKeepTheLaw:
    @few
    @given(seed=seeds, zeros=st.booleans())
    def test_on_ranked_trees(self, acceptor: Any, seed: int, zeros: bool) -> None:
        p, q = table(seed, 3, 3, zeros), table(seed + 1, 3, 3, zeros)
        for draft in (ranked(q, 2, 2), ranked(q, 3, 2, budget=4)):
            assert gap(draft, acceptor, p, 2) < PRECISION

    @few
    @given(seed=seeds, zeros=st.booleans())
    def test_on_chains_of_sampled_drafts(self, acceptor: Any, seed: int, zeros: bool) -> None:
        p, q = table(seed, 3, 3, zeros), table(seed + 1, 3, 3, zeros)
        assert gap(drawn(sample, q, [1, 1]), acceptor, p, 2) < PRECISION

    @few
    @given(seed=seeds, zeros=st.booleans(), width=st.integers(1, 3))
    def test_on_independent_siblings(
        self, acceptor: Any, seed: int, zeros: bool, width: int
    ) -> None:
        p, q = table(seed, 3, 2, zeros), table(seed + 1, 3, 2, zeros)
        assert gap(drawn(sample, q, [width]), acceptor, p, 1) < PRECISION

    @few
    @given(seed=seeds, zeros=st.booleans(), width=st.integers(1, 4))
    def test_on_siblings_without_replacement(
        self, acceptor: Any, seed: int, zeros: bool, width: int
    ) -> None:
        p, q = table(seed, 3, 2, zeros), table(seed + 1, 3, 2, zeros)
        draft = drawn(sample_without_replacement, q, [width])
        assert gap(draft, acceptor, p, 1) < PRECISION

    def test_on_nodes_with_fewer_draws_than_their_neighbours(self, acceptor: Any) -> None:
        p, q = table(5, 2, 3), table(6, 2, 3)

        def draft(builder: TreeBuilder) -> DraftTree:
            sample_without_replacement(builder, proposal(builder, q), 2)
            builder.advance(torch.tensor([0, 1]))
            keep = torch.tensor([0, 1, 2])
            sample_without_replacement(builder, proposal(builder, q), 2, keep=keep)
            return builder.tree()

        assert gap(draft, acceptor, p, 2) < PRECISION

    def test_on_sampled_trees_of_two_levels(self, acceptor: Any) -> None:
        p, q = table(5, 2, 3), table(6, 2, 3)
        for how in (sample, sample_without_replacement):
            assert gap(drawn(how, q, [2, 1]), acceptor, p, 2) < PRECISION

    def test_on_sampled_trees_pruned_by_value_or_cut_by_depth(self, acceptor: Any) -> None:
        p, q = table(7, 3, 3), table(8, 3, 3)

        def cut(builder: TreeBuilder) -> DraftTree:
            tree = drawn(sample, q, [1, 1])(builder)
            return tree.limited(torch.ones(len(tree.tokens), dtype=torch.int64))

        assert gap(cut, acceptor, p, 2) < PRECISION

        def pruned(builder: TreeBuilder) -> DraftTree:
            sample(builder, proposal(builder, q), 3)
            return rerank(builder, 2)

        assert gap(pruned, acceptor, p, 1) < PRECISION

    def test_where_draft_and_target_agree_or_share_nothing(self, acceptor: Any) -> None:
        p = table(9, 3, 2)
        apart = {path: torch.tensor([0.0, 0.0, 1.0]).double() for path in p}
        other = {path: torch.tensor([0.7, 0.3, 0.0]).double() for path in p}
        for target, q in ((p, p), (other, apart), (apart, apart)):
            for how in (sample, sample_without_replacement):
                assert gap(drawn(how, q, [2]), acceptor, target, 1) < PRECISION
            assert gap(ranked(q, 2, 1), acceptor, target, 1) < PRECISION


def relabelled(draft: Draft, draws: Draws) -> Draft:
    def wrong(builder: TreeBuilder) -> DraftTree:
        tree = draft(builder)
        return label(tree, draws, None if draws is Draws.POINT else tree.sampled_from)

    return wrong


@pytest.mark.parametrize(
    ("how", "draws"),
    [
        (sample_without_replacement, Draws.IID),
        (sample, Draws.WITHOUT_REPLACEMENT),
    ],
)
def test_the_enumeration_sees_a_wrong_label(how: Any, draws: Draws) -> None:
    p, q = table(1, 3, 2), table(2, 3, 2)
    wrong = relabelled(drawn(how, q, [2]), draws)
    assert gap(wrong, Rejection(), p, 1) > 1e-3
    assert gap(wrong, Match(), p, 1) < PRECISION, "match is exact whatever the label says"


def test_rejection_of_sampled_drafts_accepts_more_than_match() -> None:
    """Rejection accepts with sum(min(p, q)), match with sum(p q): both seen in the exact
    distribution."""
    p, q = table(3, 4, 1), table(4, 4, 1)

    def accepted(acceptor: Any) -> float:
        (acceptance, _), weights = exact.steps(drawn(sample, q, [1]), acceptor, p)
        return float((weights * acceptance.length).sum())

    assert accepted(Rejection()) == pytest.approx(float(torch.minimum(p[()], q[()]).sum()))
    assert accepted(Match()) == pytest.approx(float((p[()] * q[()]).sum()))


def test_typical_is_lossy_and_says_so() -> None:
    acceptor = Typical(TypicalOptions())
    assert not acceptor.lossless
    assert Match().lossless and Match().seed_exact
    assert Rejection().lossless and not Rejection().seed_exact
    p, q = table(1, 3, 2), table(2, 3, 2)
    assert gap(ranked(q, 2, 1), acceptor, p, 1) > 1e-2


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_rejection_draws_only_where_something_is_decided(depth: int) -> None:
    """No outcome but those: every chain accepted whole, or cut at a token of too high a q.

    Only token 2 can be turned down, and only tokens 0 and 1 can come in its place.
    """
    p = {path: torch.tensor([0.5, 0.3, 0.2]).double() for path in table(0, 3, depth)}
    q = {path: torch.tensor([0.2, 0.2, 0.6]).double() for path in p}
    _, weights = exact.steps(drawn(sample, q, [1] * depth), Rejection(), p)
    whole = 3**depth * len(p[()])
    cut = depth * 3 ** (depth - 1) * 2
    assert len(weights) == whole + cut


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", [sample, sample_without_replacement])
def test_rejection_keeps_the_distribution_on_wider_sampled_trees(how: Any, seed: int) -> None:
    p, q = table(seed, 3, 3), table(seed + 50, 3, 3)
    assert gap(drawn(how, q, [2, 1]), Rejection(), p, 2) < PRECISION
    p, q = table(seed, 4, 2), table(seed + 50, 4, 2)
    assert gap(drawn(how, q, [3]), Rejection(), p, 1) < PRECISION
