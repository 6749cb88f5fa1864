"""Medusa heads: several tokens ahead at once, from the target's last hidden state."""

from __future__ import annotations

from specdec.drafting.heads_tree import TREE_OF_63
from specdec.plugin.components import CheckpointKind, Component, Strategy, Trainer, hookimpl
from specdec_plugins.medusa.checkpoint import HEADS
from specdec_plugins.medusa.drafter import NEEDED, MedusaOptions, make_medusa
from specdec_plugins.medusa.training import MedusaTraining, make_recipe


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "medusa",
            make_medusa,
            MedusaOptions,
            "Medusa heads: a token further ahead each, from the target's last hidden state",
            needs_checkpoint=NEEDED,
            recognises=HEADS.recognises,
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "medusa",
            drafter="medusa",
            policy="static_tree",
            options={"policy": {"choices": TREE_OF_63}},
            description="Medusa: heads that draft every depth at once, and its tree of 63 nodes",
        )
    ]


@hookimpl
def specdec_trainers() -> list[Trainer]:
    return [Trainer("medusa", make_recipe, MedusaTraining, "Medusa heads (Medusa-1)")]


@hookimpl
def specdec_checkpoints() -> list[CheckpointKind]:
    return [CheckpointKind(HEADS.name, HEADS.recognises, HEADS.describe)]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.medusa.testing import SUPPORT

    return [*SUPPORT]
