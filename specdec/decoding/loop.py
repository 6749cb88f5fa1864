"""The decoding loop: any strategy, any batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from specdec.decoding.clock import Clock
from specdec.decoding.draft_phase import DraftPhase
from specdec.decoding.interfaces import Acceptor, Features, Verifier
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.models.hf_target import HFTarget
from specdec.models.hidden_states import HiddenStates


@torch.inference_mode()
def decode(
    target: HFTarget,
    draft_phase: DraftPhase,
    verifier: Verifier,
    acceptor: Acceptor,
    state: State,
    clock: Clock,
) -> Iterator[Step]:
    """Decode every row of ``state`` to its end, one step at a time.

    Source: EAGLE-2 (arXiv 2406.16858), section 4; the acceptor decides which draft tokens are kept.
    """
    with clock("prefill"):
        features = prefill(target, state)
    with clock("draft"):
        draft_phase.start(state, features)
    del features
    while not state.finished:
        if state.many_finished and draft_phase.shrinks:
            with clock("commit"):
                draft_phase.keep_unfinished()
        with clock("draft"):
            tree = draft_phase.tree()
        with clock("verify"):
            verification = verifier.verify(target, state, tree)
        with clock("accept"):
            acceptance = acceptor.accept(tree, verification, state.randomness)
        with clock("commit"):
            step = state.commit(tree, verification, acceptance)
        with clock("draft"):
            draft_phase.commit(step)
        yield step


def prefill(target: HFTarget, state: State) -> Features:
    """Read every prompt token that the cache does not hold yet, except the root."""
    counts = [n - 1 - start for n, start in zip(state.host_lengths, state.cached, strict=True)]
    longest = max(counts)
    if longest == 0:
        last, aux = (
            torch.zeros(state.rows, 0, channels, dtype=target.dtype, device=target.device)
            for channels in (target.hidden_size, target.aux_hidden_size)
        )
        return Features(HiddenStates(last, (aux,) * len(target.aux_layers)), state.cached)
    if state.cache is None:
        return Features(target.read(state.tokens[:, :longest]), state.cached)
    if any(state.cached):
        steps = torch.arange(longest, device=state.tokens.device)
        positions = state.cache.lengths[:, None] + steps
        tokens = state.tokens.gather(1, positions.clamp(max=state.tokens.shape[1] - 1))
        causal = (steps <= steps[:, None]).expand(state.rows, -1, -1)
        hidden = target.forward(tokens, positions, causal, state.cache)
    else:
        hidden = target.prefill(state.tokens[:, :longest], state.cache)
    state.cache.advance(state.lengths - 1 - state.cache.lengths, state.longest - 1)
    return Features(hidden, state.cached)
