"""Draft trees: structure against brute force, expansion and reranking against plain references."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec.decoding.proposal import Proposal
from specdec.decoding.tree import DraftTree, Draws, tree_from_choices
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.expansion import grow_level
from specdec.drafting.reranking import keep_nodes, top_by_value
from specdec.drafting.samplers import sample, sample_without_replacement
from specdec.errors import PluginError

NEVER = float("-inf")
VOCAB = 7


@st.composite
def forests(draw: st.DrawFn) -> DraftTree:
    """Two rows of random trees of one size, with invalid nodes, unique tokens among siblings."""
    size = draw(st.integers(1, 12))
    rows = []
    for _ in range(2):
        parents, tokens, valid = [-1], [draw(st.integers(0, VOCAB - 1))], [True]
        for node in range(1, size):
            parents.append(draw(st.integers(0, node - 1)))
            siblings = [tokens[i] for i in range(1, node) if parents[i] == parents[node]]
            free = sorted(set(range(20)) - set(siblings))
            tokens.append(draw(st.sampled_from(free[:VOCAB])))
            valid.append(valid[parents[node]] and draw(st.integers(0, 4)) > 0)
        rows.append((parents, tokens, valid))
    parents, tokens, valid = (torch.tensor([row[i] for row in rows]) for i in range(3))
    depth = max(len(path(parents[row], node)) - 1 for row in range(2) for node in range(size))
    counts = [[row.tolist().count(node) for node in range(size)] for row in parents]
    branching = max(max(own) for own in counts)
    return DraftTree(tokens, parents, -torch.rand(2, size), valid, depth, branching)


def path(parents: torch.Tensor, node: int) -> list[int]:
    """Node ids from the root down to ``node``."""
    return [*path(parents, int(parents[node])), node] if node else [0]


def nodes_of(tree: DraftTree) -> list[tuple[int, int]]:
    return [(row, node) for row in range(len(tree.tokens)) for node in range(tree.size)]


@given(forests())
def test_ancestors_and_depths_are_those_of_a_walk_up(tree: DraftTree) -> None:
    for row, node in nodes_of(tree):
        above = path(tree.parents[row], node)
        assert tree.ancestors[row, node].nonzero().flatten().tolist() == sorted(above)
        assert int(tree.depths[row, node]) == len(above) - 1


@given(forests())
def test_children_are_the_valid_nodes_below_in_index_order(tree: DraftTree) -> None:
    for row, node in nodes_of(tree):
        below = [
            i
            for i in range(1, tree.size)
            if int(tree.parents[row, i]) == node and bool(tree.valid[row, i])
        ]
        listed = [c for c in tree.children[row, node].tolist() if c >= 0]
        assert listed == below
        at = torch.full((2,), node)
        assert bool(tree.has_child(at)[row]) == bool(below)
        for token in range(20):
            carrying = [i for i in below if int(tree.tokens[row, i]) == token]
            found = int(tree.child_with(at, torch.full((2,), token))[row])
            assert found == (carrying[0] if carrying else -1)


@given(forests(), st.integers(0, 5), st.integers(0, 5))
def test_limiting_makes_exactly_the_deeper_nodes_invalid(
    tree: DraftTree, first: int, second: int
) -> None:
    limited = tree.limited(torch.tensor([first, second]))
    for row, node in nodes_of(tree):
        shallow = len(path(tree.parents[row], node)) - 1 <= (first, second)[row]
        assert bool(limited.valid[row, node]) == (bool(tree.valid[row, node]) and shallow)
    assert torch.equal(limited.tokens, tree.tokens)
    assert torch.equal(limited.parents, tree.parents)


@given(st.integers(0, 5), st.integers(1, 3))
def test_a_chain_has_one_node_below_the_other(depth: int, batch: int) -> None:
    tokens = torch.arange(batch * depth).view(batch, depth)
    tree = DraftTree.chain(torch.full((batch,), 9), tokens)
    assert tree.depths.tolist() == [list(range(depth + 1))] * batch
    assert tree.tokens[:, 1:].tolist() == tokens.tolist()
    assert bool(tree.valid.all())


def grow(logits: list[torch.Tensor], k: int) -> TreeBuilder:
    """Run the expansion phase of EAGLE-2 on fixed logits, one ``[B, n, C]`` a level."""
    builder = TreeBuilder(tiny.make_state([[1, 2, 3], [4]][: len(logits[0])], vocab=VOCAB))
    for level in logits:
        grow_level(builder, Proposal(level[:, : builder.frontier.width]), k)
        builder.advance_best(k)
    return builder


def expand_by_hand(logits: list[torch.Tensor], k: int, row: int) -> list[tuple[int, int, float]]:
    """(token, parent, score) of every candidate, by plain loops; the root first."""
    nodes, beam = [(0, -1, 0.0)], [0]
    for level in logits:
        start = len(nodes)
        for rank, node in enumerate(beam):
            distribution = level[row, rank].log_softmax(dim=-1).tolist()
            for token in sorted(range(len(distribution)), key=lambda t: -distribution[t])[:k]:
                nodes.append((token, node, nodes[node][2] + distribution[token]))
        order = sorted(range(start, len(nodes)), key=lambda i: (-nodes[i][2], i))
        beam = order[:k]
    return nodes


def random_logits(seed: int, levels: int, width: int, vocab: int = VOCAB) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, width, vocab)
    return [3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(levels)]


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_expansion_equals_a_plain_loop(seed: int, levels: int, k: int) -> None:
    logits = random_logits(seed, levels, width=k)
    tree = grow(logits, k).tree()
    for row in range(2):
        wanted = expand_by_hand(logits, k, row)
        assert tree.size == len(wanted)
        assert tree.tokens[row, 1:].tolist() == [token for token, _, _ in wanted[1:]]
        assert tree.parents[row].tolist() == [parent for _, parent, _ in wanted]
        assert tree.log_value[row].tolist() == pytest.approx([score for _, _, score in wanted])
    assert tree.depth == levels
    assert bool(tree.valid.all())


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(2, 4))
def test_the_frontier_knows_its_paths_and_positions(seed: int, levels: int, k: int) -> None:
    builder = grow(random_logits(seed, levels, width=k), k)
    tree, frontier = builder.tree(), builder.frontier
    for row in range(2):
        for index, node in enumerate(frontier.nodes[row].tolist()):
            own = path(tree.parents[row], node)
            assert frontier.path(row, index) == tree.tokens[row, own].tolist()
            assert int(frontier.positions[row, index]) == [2, 0][row] + len(own) - 1


logits_with_ties = st.lists(st.sampled_from([0.0, 0.0, 1.0, 50.0, NEVER]), min_size=4, max_size=4)


@given(
    st.lists(
        st.lists(st.lists(logits_with_ties, min_size=3, max_size=3), min_size=2, max_size=2),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 30),
)
def test_reranking_keeps_the_best_in_order_and_whole_paths_even_with_ties(
    levels: list[Any], budget: int
) -> None:
    builder = grow([torch.tensor(level, dtype=torch.float64) for level in levels], k=3)
    everything, kept = builder.tree(), top_by_value(builder, budget)
    assert kept.size == min(budget + 1, everything.size)
    for row in range(2):
        value = everything.log_value[row].tolist()
        order = sorted(range(1, everything.size), key=lambda i: (-value[i], i))
        best = [0, *sorted(order[:budget])]
        assert kept.log_value[row].tolist() == [value[i] for i in best]
        assert kept.tokens[row].tolist() == everything.tokens[row, best].tolist()
        assert kept.valid[row].tolist() == everything.valid[row, best].tolist()
        for new, old in enumerate(best):
            if not everything.valid[row, old] or not old:
                continue
            assert int(everything.parents[row, old]) in best, "closed under parents"
            renamed = [best[n] for n in path(kept.parents[row], new)]
            assert renamed == path(everything.parents[row], old)


@given(forests(), st.data())
def test_whatever_nodes_are_kept_the_valid_ones_are_a_tree_of_valid_paths(
    tree: DraftTree, data: Any
) -> None:
    """Values that rise along a path would keep a node without its parent."""
    count = data.draw(st.integers(0, tree.size - 1))
    below = st.lists(
        st.integers(1, max(1, tree.size - 1)), min_size=count, max_size=count, unique=True
    )
    nodes = torch.tensor([[0, *data.draw(below)] for _ in range(2)])
    kept = keep_nodes(tree, nodes, depth=tree.depth)
    for row in range(2):
        old = nodes[row].sort().values.tolist()
        for new in range(kept.size):
            whole = set(path(tree.parents[row], old[new])) <= {*old}
            walked = [new]
            while kept.valid[row, walked[-1]] and kept.parents[row, walked[-1]] >= 0:
                walked.append(int(kept.parents[row, walked[-1]]))
                assert walked[-1] < walked[-2]
            reached = walked[-1] == 0 and bool(kept.valid[row, walked].all())
            assert reached == (whole and bool(tree.valid[row, old[new]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ancestors_are_those_of_a_walk_up_within_autocast_too(dtype: torch.dtype) -> None:
    chain = DraftTree.chain(torch.zeros(1, dtype=torch.int64), torch.zeros(1, 60).long())
    with torch.autocast("cpu", dtype):
        assert chain.ancestors.equal(torch.ones(1, 61, 61).tril().bool())


def test_a_vocabulary_smaller_than_k_gives_as_many_children_as_it_has() -> None:
    tree = grow(random_logits(0, levels=2, width=5, vocab=3), k=5).tree()
    for row in range(2):
        for parent in range(tree.size):
            children = [c for c in tree.children[row, parent].tolist() if c >= 0]
            assert len({int(tree.tokens[row, c]) for c in children}) == len(children) <= 3
    assert int(tree.valid[0].sum()) == 1 + 3 + 3 * 3


def test_a_row_without_an_opinion_gets_no_children_and_no_nan() -> None:
    logits = random_logits(1, levels=2, width=3)
    logits[0][1] = NEVER
    tree = grow(logits, k=3).tree()
    assert tree.valid[0].all() and tree.valid[1].tolist() == [True] + [False] * (tree.size - 1)
    assert not tree.log_value.isnan().any()
    assert not bool(tree.has_child(torch.zeros(2, dtype=torch.int64))[1])


def test_tokens_ruled_out_by_the_drafter_are_never_children() -> None:
    logits = random_logits(2, levels=1, width=1)
    logits[0][:, :, 2:] = NEVER
    tree = grow(logits, k=4).tree()
    assert set(tree.tokens[tree.valid & (tree.depths == 1)].tolist()) == {0, 1}


def test_reduced_vocabularies_are_mapped_to_target_tokens() -> None:
    builder = TreeBuilder(tiny.make_state([[1], [2]]))
    ids = torch.tensor([40, 3, 17])
    logits = torch.tensor([[[0.0, 2.0, 1.0]], [[5.0, 2.0, 1.0]]])
    grow_level(builder, Proposal(logits, ids), 2)
    assert builder.tree().tokens[:, 1:].tolist() == [[3, 17], [40, 3]]


@pytest.mark.parametrize(
    ("draw", "draws"),
    [(sample, Draws.IID), (sample_without_replacement, Draws.WITHOUT_REPLACEMENT)],
)
def test_sampled_trees_are_labelled_and_pruning_makes_them_point(draw: Any, draws: Draws) -> None:
    builder = TreeBuilder(tiny.make_state([[1], [2]], vocab=VOCAB))
    draw(builder, Proposal(random_logits(3, 1, 1)[0]), 4)
    whole = top_by_value(builder, 4)
    assert whole.draws is draws and whole.sampled_from is not None
    # Levels may depend on what was drawn, so a tree cut by depth loses its label too.
    assert whole.limited(torch.tensor([1, 0])).draws is Draws.POINT
    pruned = top_by_value(builder, 3)
    assert pruned.draws is Draws.POINT and pruned.sampled_from is None
    if draws is Draws.WITHOUT_REPLACEMENT:
        for own in whole.tokens[:, 1:].tolist():
            assert len(set(own)) == 4


def test_a_sampled_tree_cannot_grow_by_another_kind_of_draw() -> None:
    builder = TreeBuilder(tiny.make_state([[1], [2]], vocab=VOCAB))
    sample(builder, Proposal(random_logits(3, 1, 1)[0]), 2)
    builder.advance(torch.arange(2))
    with pytest.raises(PluginError, match="iid"):
        sample_without_replacement(builder, Proposal(random_logits(4, 1, 2)[0]), 2)
    grow_level(builder, Proposal(random_logits(4, 1, 2)[0]), 2)
    assert builder.tree().draws is Draws.POINT, "mixing with ranked children loses the label"


def test_choices_are_put_in_level_order_and_checked() -> None:
    paths = tree_from_choices([[0, 1], [1], [0], [0, 0]])
    assert paths == [(0,), (1,), (0, 0), (0, 1)]
    assert all(len(a) <= len(b) for a, b in pairwise(paths))
    with pytest.raises(ValueError, match=r"needs its parent \[1\]"):
        tree_from_choices([[0], [1, 0]])
    with pytest.raises(ValueError, match="no path of child ranks"):
        tree_from_choices([[-1]])


@pytest.mark.parametrize("ids", [None, "of all nodes", "of each node"])
@pytest.mark.parametrize("k", [3, VOCAB + 2])
def test_nodes_that_share_their_logits_are_ranked_once_and_as_each_by_itself(
    ids: str | None, k: int
) -> None:
    logits = random_logits(5, 1, 1)[0].expand(-1, 4, -1)
    token_ids = None
    if ids is not None:
        token_ids = torch.arange(VOCAB).flip(0) + 100
    if ids == "of each node":
        token_ids = torch.stack([token_ids + node for node in range(4)]).expand(2, -1, -1)
    ranked: list[int] = []
    log_softmax = torch.log_softmax

    def counted(scores: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        ranked.append(scores.shape[1])
        return log_softmax(scores, *given, **named)

    with mock.patch("torch.log_softmax", counted):
        values, tokens = Proposal(logits, token_ids).top(k)
        due_values, due_tokens = Proposal(logits.contiguous(), token_ids).top(k)
    assert torch.equal(values, due_values) and torch.equal(tokens, due_tokens)
    assert ranked == [1, 4]
    values += 1  # a policy may write on what it got
