"""The expansion phase: children of the frontier, valued by their path."""

from __future__ import annotations

from torch import Tensor

from specdec.decoding.proposal import Proposal
from specdec.decoding.tree_builder import TreeBuilder, parents_of_children


def grow_level(
    builder: TreeBuilder, proposal: Proposal, k: int, *, keep: Tensor | None = None
) -> None:
    """Give every frontier node its k likeliest tokens as children, valued by their path.

    Args:
        keep: ``[m]`` int64, which of the ``n * k`` children exist (row-major); None for all.

    Source: EAGLE-2 (arXiv 2406.16858), section 4.1: value = product of confidences on the path.
    """
    log_q, tokens = proposal.top(k)
    values = (builder.frontier.log_value[:, :, None] + log_q).flatten(1)
    tokens = tokens.flatten(1)
    parents = parents_of_children(builder.frontier.width, k, tokens.device)
    if keep is not None:
        keep = keep.to(tokens.device)
        tokens, values = tokens.index_select(1, keep), values.index_select(1, keep)
        parents = parents.index_select(0, keep)
    builder.add(tokens, parents, values, branching=k)
