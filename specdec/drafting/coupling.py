"""Coupled drafting: rank draft tokens by the noise that will decide the target's own draw."""

from __future__ import annotations

import torch

from specdec.decoding.proposal import Proposal, vocabulary_logits
from specdec.decoding.randomness import Key, Stream
from specdec.decoding.tree_builder import TreeBuilder

# Of the option `coupled` of tree policies.
COUPLED = "rank draft tokens by the noise of the target's own draw (only with the acceptor match)"


def couple(builder: TreeBuilder, proposal: Proposal) -> Proposal:
    """The proposal as a guess at the target's own draw at each position.

    The request's warpers and logits processors are applied to the draft logits, as they will be to
    the target's. Then each token's score is shifted by its noise: the target draws
    ``argmin E / p = argmax log p - log E`` with noise E that is known beforehand, so with the draft
    distribution in the place of p the largest score says which token this seed will draw, not which
    is likeliest.

    Exact under an acceptor that is ``seed_exact``, whatever it is used for: such an acceptor keeps
    the target's own draw at every node of any tree.

    Returns:
        Scores as logits, not normalised, for the proposal's tokens (or all of V where a processor
        looks scores up by token). At temperature 0 and under a generator without such noise they
        have no shift.

    Source: Daliri, Musco and Suresh 2024 (arXiv 2408.07978), Gumbel coupling.
    """
    state, frontier = builder.state, builder.frontier
    processors = state.processors
    scattered = proposal.token_ids is not None and proposal.token_ids.dim() > 1
    if scattered or processors.draft_by_token:
        proposal = Proposal(vocabulary_logits(proposal, state.vocab_size))
    logits, tokens = proposal.logits, proposal.token_ids
    scores = processors.draft_scores(
        logits, lambda: frontier.prefixes(state.tokens[:, : state.span])
    )
    if processors.greedy and scores is logits:
        return proposal
    log_q = Proposal(scores).log_q
    if processors.greedy:
        return Proposal(log_q, tokens)
    key = Key(Stream.TARGET, state.root_position() + (frontier.depth + 1))
    racing = torch.arange(state.vocab_size, device=logits.device) if tokens is None else tokens
    noise = state.randomness.exponential(key, racing)
    if noise is None:
        return Proposal(log_q, tokens)
    shift = noise.to(log_q.dtype).clamp(min=torch.finfo(log_q.dtype).tiny).log_()
    return Proposal(log_q - shift[:, None], tokens)
