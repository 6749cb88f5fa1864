"""Hydra heads: several tokens ahead, each of which reads the draft tokens before it."""

from __future__ import annotations

from specdec.drafting.heads_tree import TREE_OF_63
from specdec.plugin.components import CheckpointKind, Component, Strategy, Trainer, hookimpl
from specdec_plugins.hydra.checkpoint import HEADS
from specdec_plugins.hydra.drafter import NEEDED, HydraOptions, make_hydra
from specdec_plugins.hydra.training import HydraTraining, make_recipe


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "hydra",
            make_hydra,
            HydraOptions,
            "Hydra heads: a token further ahead each, from hidden state and draft tokens",
            needs_checkpoint=NEEDED,
            recognises=HEADS.recognises,
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "hydra",
            drafter="hydra",
            policy="static_tree",
            options={"policy": {"choices": TREE_OF_63}},
            description="Hydra: heads that read the draft tokens so far, and its tree of 63 nodes",
        )
    ]


@hookimpl
def specdec_trainers() -> list[Trainer]:
    return [Trainer("hydra", make_recipe, HydraTraining, "Hydra or Hydra++ heads")]


@hookimpl
def specdec_checkpoints() -> list[CheckpointKind]:
    return [CheckpointKind(HEADS.name, HEADS.recognises, HEADS.describe)]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.hydra.testing import SUPPORT

    return [*SUPPORT]
