"""The reranking phase: the candidates that are worth verifying."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder


def top_by_value(
    builder: TreeBuilder, budget: int, *, order: Tensor | None = None, depth: int | None = None
) -> DraftTree:
    """The ``budget`` candidates of highest value, in the order grown.

    Ties go to the candidate with the lower node, which no parent's child is, so the kept set is
    closed under parents. A sampled tree that is pruned becomes ``POINT``.

    Args:
        order: ``[B, size - 1]`` int64, the columns of the builder's values by falling value, ties
            to the first, where they have been sorted already.
        depth: of the deepest candidate that is kept, where it is known; all levels if left out.

    Source: EAGLE-2 (arXiv 2406.16858), section 4.2.
    """
    everything = builder.tree()
    if budget >= builder.size - 1:
        return everything
    if order is None:
        order = everything.log_value[:, 1:].sort(dim=1, descending=True, stable=True).indices
    kept = pad(order[:, :budget] + 1, (1, 0))
    return keep_nodes(everything, kept, depth=everything.depth if depth is None else depth)


def keep_nodes(tree: DraftTree, nodes: Tensor, *, depth: int) -> DraftTree:
    """The tree of some of its nodes, in the order grown; a sampled tree becomes ``POINT``.

    Args:
        nodes: ``[B, m]`` int64, the root and nodes whose parents are among them, in any order. One
            whose parent is not becomes invalid, so that the tree is one whatever a policy's values
            are.
        depth: of the deepest of them, or more.
    """
    kept = nodes.sort(dim=1).values
    wanted = tree.parents.gather(1, kept).clamp_(min=0)  # the root's is the root
    parents = torch.searchsorted(kept, wanted)
    whole = kept.gather(1, parents) == wanted
    parents[:, 0] = -1
    return DraftTree(
        tokens=tree.tokens.gather(1, kept),
        parents=parents,
        log_value=tree.log_value.gather(1, kept),
        valid=whole.logical_and_(tree.valid.gather(1, kept)),
        depth=depth,
        branching=tree.branching,
        from_text=tree.from_text,
    )
