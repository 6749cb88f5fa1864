"""EAGLE-2 without its two ideas, for its ablation: confidence as score, no reranking."""

from __future__ import annotations

import torch
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.proposal import NEVER, Proposal
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.reranking import keep_nodes


def most_confident(builder: TreeBuilder, proposal: Proposal, k: int) -> Tensor:
    """Columns ``[B, k]`` int64 of the last level: its likeliest candidates by their own confidence,
    whatever their path is worth; ties to the first.

    Source: EAGLE-2 (arXiv 2406.16858), section 5.3, the ablation of value.
    """
    confidence = proposal.top(k)[0].flatten(1)
    values = builder.values[:, -confidence.shape[1] :]
    confidence = confidence.masked_fill(values <= NEVER, NEVER)
    return confidence.sort(dim=1, descending=True, stable=True).indices[:, :k]


def frontiers_alone(builder: TreeBuilder, budget: int) -> DraftTree:
    """The nodes chosen for expansion on each level, the last one's too, the upper levels first
    until there are ``budget``.

    Source: EAGLE-2 (arXiv 2406.16858), section 5.3, the ablation of reranking.
    """
    levels = []
    frontier: Frontier | None = builder.frontier
    while frontier is not None:
        levels.append(frontier.nodes)
        frontier = frontier.before
    tree, nodes = builder.tree(), torch.cat(levels[::-1], dim=1)
    missing = ~tree.valid.gather(1, nodes)
    nodes = nodes.gather(1, missing.sort(dim=1, stable=True).indices)
    return keep_nodes(tree, nodes[:, : budget + 1], depth=builder.depth)
