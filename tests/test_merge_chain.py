"""A chain merged into a growing tree: one node for one token on one path."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.reranking import top_by_value
from specdec.errors import PluginError

NEVER = float("-inf")


def grown(seed: int, rows: int, levels: int, width: int, k: int, vocabulary: int) -> TreeBuilder:
    """A tree of random candidates, some of which do not exist."""
    generator = torch.Generator().manual_seed(seed)
    builder = TreeBuilder(tiny.make_state([[1, 2]] * rows))
    for _ in range(levels):
        n = builder.frontier.width
        tokens = torch.stack(
            [torch.randperm(vocabulary, generator=generator)[:k] for _ in range(rows * n)]
        ).view(rows, n * k)
        confidence = torch.rand(rows, n, k, generator=generator).log()
        confidence[torch.rand(rows, n, k, generator=generator) < 0.2] = NEVER
        values = (builder.frontier.log_value[:, :, None] + confidence).flatten(1)
        builder.add(tokens, torch.arange(n).repeat_interleave(k), values, branching=k)
        builder.advance_best(width)
    return builder


def chain(seed: int, rows: int, length: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and values of random chains, shorter in some rows."""
    generator = torch.Generator().manual_seed(seed + 1)
    tokens = torch.randint(0, vocabulary, (rows, length), generator=generator)
    values = torch.rand(rows, length, generator=generator).log().cumsum(dim=1)
    ends = torch.randint(0, length + 1, (rows, 1), generator=generator)
    return tokens, values.masked_fill(torch.arange(length) >= ends, NEVER)


Paths = dict[tuple[int, ...], float]


def paths(tree: object, row: int) -> Paths:
    """The value of every node that exists by its path of tokens; checks that the tree is one."""
    parents, tokens = tree.parents[row].tolist(), tree.tokens[row].tolist()  # type: ignore[attr-defined]
    values, valid = tree.log_value[row].tolist(), tree.valid[row].tolist()  # type: ignore[attr-defined]
    found: dict[int, tuple[int, ...]] = {0: ()}
    made: Paths = {(): 0.0}
    children: dict[int, int] = {}
    for node in range(1, len(parents)):
        assert 0 <= parents[node] < node, "parents come first"
        if not valid[node]:
            continue
        assert valid[parents[node]] and values[node] <= values[parents[node]]
        path = (*found[parents[node]], tokens[node])
        assert path not in made, "siblings differ"
        found[node], made[path] = path, values[node]
        children[parents[node]] = children.get(parents[node], 0) + 1
    assert max(map(len, made)) <= tree.depth  # type: ignore[attr-defined]
    assert max(children.values(), default=0) <= tree.branching  # type: ignore[attr-defined]
    return made


@given(
    seed=st.integers(0, 10_000),
    levels=st.integers(0, 3),
    length=st.integers(1, 5),
    budget=st.integers(1, 12),
)
def test_the_union_of_both_with_the_larger_value_of_each(
    seed: int, levels: int, length: int, budget: int
) -> None:
    rows, vocabulary = 3, 5
    builder = grown(seed, rows, levels, width=2, k=3, vocabulary=vocabulary)
    before = [paths(builder.tree(), row) for row in range(rows)]
    tokens, values = chain(seed, rows, length, vocabulary)
    builder.merge_chain(tokens, values)
    tree = builder.tree()
    assert builder.size == tree.size and builder.values.shape[1] == tree.size - 1
    cut = top_by_value(builder, budget)
    assert cut.size == min(tree.size, budget + 1)
    order = builder.values.sort(dim=1, descending=True, stable=True).indices
    depth = int(builder.candidate_levels[order[:, :budget]].max())
    same = top_by_value(builder, budget, order=order, depth=depth)
    for name in ("tokens", "parents", "log_value", "valid"):
        assert torch.equal(getattr(same, name), getattr(cut, name))
    assert paths(tree, 0).keys() >= paths(same, 0).keys() and same.depth <= cut.depth
    for row in range(rows):
        expected = dict(before[row])
        for end in range(1, length + 1):
            value = values[row, end - 1].item()
            if value > NEVER:
                path = tuple(tokens[row, :end].tolist())
                expected[path] = max(value, expected.get(path, NEVER))
        assert paths(tree, row) == pytest.approx(expected)
        kept = paths(cut, row)
        assert kept.items() <= paths(tree, row).items()
        assert len(kept) - 1 == min(budget, len(expected) - 1)
        assert max(map(len, kept)) <= depth
        left = [value for path, value in expected.items() if path not in kept]
        assert max(left, default=NEVER) <= min(kept.values()) + 1e-6


def test_without_a_level_the_tree_is_the_chain() -> None:
    builder = TreeBuilder(tiny.make_state([[1, 2]]))
    builder.merge_chain(torch.tensor([[4, 5]]), torch.tensor([[-0.5, -1.0]]))
    tree = builder.tree()
    assert tree.tokens.tolist() == [[2, 4, 5]] and tree.parents.tolist() == [[-1, 0, 1]]
    assert (tree.depth, tree.branching, tree.from_text) == (2, 1, True)


def test_one_chain_is_merged_after_the_last_level() -> None:
    builder = grown(1, 1, 1, 2, 3, 5)
    one = torch.tensor([[4]]), torch.tensor([[-0.5]])
    builder.merge_chain(*one)
    with pytest.raises(PluginError, match="takes one"):
        builder.merge_chain(*one)
    with pytest.raises(PluginError, match="after the last level"):
        builder.add(one[0], torch.tensor([0]), one[1], branching=1)
