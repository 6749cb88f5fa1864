"""Samplers: children drawn from the draft distribution, with the label that says how."""

from __future__ import annotations

import torch
from torch import Tensor

from specdec.decoding.proposal import NEVER, Proposal, vocabulary_logits
from specdec.decoding.randomness import Key, Stream
from specdec.decoding.tree import Draws
from specdec.decoding.tree_builder import TreeBuilder, parents_of_children


def sample(builder: TreeBuilder, proposal: Proposal, n: int) -> None:
    """Give every frontier node n children drawn independently from the draft distribution.

    The distribution is q under the request's own temperature and truncation; what is drawn from is
    what is recorded. The tree is labelled ``IID``.
    """
    _sample(builder, proposal, n, Draws.IID)


def sample_without_replacement(
    builder: TreeBuilder, proposal: Proposal, n: int, *, keep: Tensor | None = None
) -> None:
    """Give every frontier node n distinct children, drawn one after the other.

    Each draw is from q without the tokens drawn before it. The tree is labelled
    ``WITHOUT_REPLACEMENT``; a node whose distribution has fewer than n tokens gets fewer children.

    Args:
        keep: ``[m]`` int64, which of the ``frontier width * n`` children exist (row-major), of each
            node the first ones; None for all.
    """
    _sample(builder, proposal, n, Draws.WITHOUT_REPLACEMENT, keep)


def _sample(
    builder: TreeBuilder,
    proposal: Proposal,
    n: int,
    draws: Draws,
    keep: Tensor | None = None,
) -> None:
    state, frontier = builder.state, builder.frontier
    # What is drawn from is what the acceptor divides by: in the precision that it does so in.
    logits = vocabulary_logits(proposal, state.vocab_size).double()
    q = state.draft_distribution(logits).probs
    abstained = (proposal.logits == NEVER).all(dim=-1)
    tokens, values = [], []
    for index in range(frontier.width):
        left = distribution = q[:, index]
        node = frontier.nodes[:, index]
        for draw in range(n):
            key = Key(Stream.DRAFT, state.root_position(), node, draw)
            token = state.sample(left, key)[:, None]
            confidence = distribution.gather(1, token)
            exists = left.gather(1, token) > 0
            exists &= ~abstained[:, index, None]
            value = frontier.log_value[:, index, None] + confidence.log()
            values.append(value.masked_fill(~exists, NEVER))
            tokens.append(token)
            if draws is Draws.WITHOUT_REPLACEMENT:
                left = left.scatter(1, token, 0.0)
    parents = parents_of_children(frontier.width, n, q.device)
    drawn, log_values = torch.cat(tokens, dim=1), torch.cat(values, dim=1)
    if keep is not None:
        keep = keep.to(q.device)
        drawn, log_values = drawn.index_select(1, keep), log_values.index_select(1, keep)
        parents = parents.index_select(0, keep)
    builder.add_sampled(drawn, parents, log_values, branching=n, draws=draws, q=q)
