"""The core's own plugin: what losslessness rests on, plain decoding, models with aliases."""

from __future__ import annotations

from specdec.plugin.components import Component, ModelAlias, NoOptions, Strategy, hookimpl
from specdec.plugin.embedded_model import EMBEDDED
from specdec.plugin.smollm2 import SMOLLM2


@hookimpl
def specdec_verifiers() -> list[Component]:
    from specdec.decoding.verifiers import PathVerifier, TreeVerifier

    return [
        Component("tree", lambda _: TreeVerifier(), NoOptions, "one target forward over the tree"),
        Component(
            "path", lambda _: PathVerifier(), NoOptions, "path by path, no cache: the oracle"
        ),
    ]


@hookimpl
def specdec_acceptors() -> list[Component]:
    from specdec.decoding.acceptors import Match, Rejection

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
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "plain", description="one token per target forward: the baseline, in the same loop"
        )
    ]


@hookimpl
def specdec_models() -> list[ModelAlias]:
    return [EMBEDDED, SMOLLM2]
