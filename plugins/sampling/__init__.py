"""Acceptors, sampled drafts with a small language model, and plain decoding as the baseline."""

from __future__ import annotations

from specdec.plugin.components import Component, NoOptions, Strategy, hookimpl
from specdec_plugins.sampling.acceptors import Match, Rejection, Typical, TypicalOptions
from specdec_plugins.sampling.draft_model import (
    NEEDED,
    DraftModelOptions,
    Sampled,
    SampledOptions,
    make_draft_model,
)


@hookimpl
def specdec_acceptors() -> list[Component]:
    return [
        Component(
            "match", lambda _: Match(), NoOptions, "the target's own draw; same seed, same text"
        ),
        Component(
            "rejection",
            lambda _: Rejection(),
            NoOptions,
            "speculative sampling; keeps the distribution",
        ),
        Component("typical", Typical, TypicalOptions, "Medusa's rule; LOSSY"),
    ]


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "draft_model",
            make_draft_model,
            DraftModelOptions,
            "a small causal language model",
            needs_checkpoint=NEEDED,
        )
    ]


@hookimpl
def specdec_tree_policies() -> list[Component]:
    return [Component("sampled", Sampled, SampledOptions, "draft tokens sampled from q")]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "plain", description="one token per target forward: the baseline, in the same loop"
        ),
        Strategy(
            "draft_model",
            drafter="draft_model",
            policy="sampled",
            acceptor="rejection",
            description="standard speculative sampling with a small draft model",
        ),
    ]
