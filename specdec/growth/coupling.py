"""Coupled drafting: rank draft tokens by the noise that will decide the target's own draw."""

from __future__ import annotations

import torch

from specdec.growth.growth import Growth
from specdec.growth.proposal import Proposal, vocabulary_logits
from specdec.randomness import Key, Stream


def couple(growth: Growth, proposal: Proposal) -> Proposal:
    """The proposal with each token's score shifted by its noise at the position it would take.

    The target's draw at a position is ``argmin E / p``, which is ``argmax log p - log E``; with
    the draft law in the place of p the largest score guesses the token that this seed will draw,
    not the likeliest one. The request's own warps are applied to the draft law first.

    Exact under an acceptor that is ``seed_exact``, whatever it is used for: such an acceptor keeps
    the target's own draw at every node of any tree.

    Returns:
        Scores over all of V as logits, not normalised; the proposal as it is at temperature 0, where the
        draw is no draw, and under a generator that has no such noise.

    Source: Daliri, Musco and Suresh 2024 (arXiv 2408.07978), Gumbel coupling.
    """
    state, frontier = growth.state, growth.frontier
    if state.processors.greedy:
        return proposal
    vocabulary = torch.arange(state.vocab_size, device=proposal.logits.device)
    key = Key(Stream.TARGET, state.root_position() + frontier.depth + 1)
    noise = state.randomness.exponential(key, vocabulary)
    if noise is None:
        return proposal
    law = state.draft_law(vocabulary_logits(proposal, state.vocab_size))
    assert law.weights is not None
    log_q = torch.log_softmax(law.weights, dim=-1)
    shift = noise.clamp(min=torch.finfo(log_q.dtype).tiny).log().to(log_q.dtype)
    return Proposal(log_q - shift[:, None])
