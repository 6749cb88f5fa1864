"""The decoding loop: any strategy, any batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from specdec.decoding.interfaces import Acceptor, Drafter, Features, TreePolicy, Verifier
from specdec.decoding.metrics import Clock
from specdec.decoding.state import State, Step
from specdec.decoding.tree import DraftTree, label
from specdec.decoding.tree_builder import TreeBuilder
from specdec.errors import PluginError
from specdec.models.hf_target import HFTarget, Hidden


@dataclass(frozen=True)
class Parts:
    """The parts of a strategy, made.

    Attributes:
        drafter: None is plain decoding, or a policy that drafts from the text alone.
        policy: None means that the drafter gives whole trees.
        compacts: whether finished rows leave the batch.
    """

    drafter: Drafter | None
    policy: TreePolicy | None
    verifier: Verifier
    acceptor: Acceptor
    compacts: bool = False


@torch.inference_mode()
def decode(target: HFTarget, parts: Parts, state: State, clock: Clock) -> Iterator[Step]:
    """Decode every row of ``state`` to its end, one step at a time.

    Source: EAGLE-2 (arXiv 2406.16858), section 4; the acceptor decides what "agrees" means.
    """
    drafter, policy = parts.drafter, parts.policy
    with clock("prefill"):
        features = prefill(target, state)
    with clock("draft"):
        if drafter:
            drafter.begin(state, features)
        if policy:
            policy.begin(target, state, clock)
    del features
    while not state.finished:
        if parts.compacts and state.any_finished:
            with clock("commit"):
                compact(state, drafter)
        with clock("draft"):
            tree = draft(parts, state, clock)
        with clock("verify"):
            verification = parts.verifier.verify(target, state, tree)
        with clock("accept"):
            acceptance = parts.acceptor.accept(tree, verification, state.randomness)
        with clock("commit"):
            step = state.commit(tree, verification, acceptance)
        if policy:
            with clock("draft"):
                policy.commit(step)
        if drafter and not state.finished:
            with clock("draft"):
                drafter.commit(step)
        yield step


def compact(state: State, drafter: Drafter | None) -> None:
    """Let finished rows leave the batch: tokens, caches, randomness and drafter together."""
    rows = state.keep_rows([r for r, why in enumerate(state.finish_reasons) if why is None])
    if drafter:
        drafter.keep_rows(rows)


def draft(parts: Parts, state: State, clock: Clock) -> DraftTree:
    """The tree to verify, no deeper than the rows' limits leave room for.

    Raises:
        PluginError: a tree whose draws the acceptor is not exact for.
    """
    drafter, policy = parts.drafter, parts.policy
    source = policy or drafter
    if source is None or state.room == 0:
        return DraftTree.root(state.root())
    tree = source.tree(state)
    if tree is None and policy and drafter:
        levels = min(policy.levels, state.room)
        tree = grow(drafter, policy, state, levels, clock) if levels else None
    if tree is None:
        return DraftTree.root(state.root())
    if tree.draws not in parts.acceptor.supports:
        raise PluginError(
            f"{type(parts.acceptor).__name__} is not exact for {tree.draws.value} draws"
        )
    if tree.depth <= state.tightest_room:
        return tree
    # The room depends on lengths alone, and whole sets of siblings go: the label stays true.
    return label(tree.limited(state.levels_left()), tree.draws, tree.sampled_from)


def grow(
    drafter: Drafter, policy: TreePolicy, state: State, levels: int, clock: Clock
) -> DraftTree:
    """The expansion phase of up to ``levels`` levels, then the reranking phase."""
    builder = TreeBuilder(state)
    while builder.depth < levels and not builder.stopped:
        proposal = drafter.propose(builder.frontier)
        policy.expand(builder, proposal)
        clock.draft_forwards += 1
    return policy.rerank(builder)


def prefill(target: HFTarget, state: State) -> Features:
    """Read every prompt token that the cache does not hold yet, except the root."""
    counts = [n - 1 - start for n, start in zip(state.host_lengths, state.cached, strict=True)]
    longest = max(counts)
    if longest == 0:
        shape = (state.rows, 0, target.hidden_size)
        nothing = torch.zeros(shape, dtype=target.dtype, device=target.device)
        return Features(Hidden(nothing, (nothing,) * len(target.aux_layers)), state.cached)
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
