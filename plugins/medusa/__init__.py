"""Medusa heads: several tokens ahead at once, from the target's last hidden state."""

from __future__ import annotations

from specdec.drafting.heads_drafter import heads_component
from specdec.drafting.sparse_tree import MC_SIM_7B_63
from specdec.plugin.components import CheckpointKind, Component, Strategy, Trainer, hookimpl
from specdec_plugins.medusa.checkpoint import HEADS
from specdec_plugins.medusa.drafter import MedusaDrafter, MedusaOptions
from specdec_plugins.medusa.training import MedusaRecipe, MedusaTraining

_NEEDED = (
    "Medusa heads: give drafter=<folder or hub id> of some trained for the model, e.g. "
    "'FasterDecoding/medusa-vicuna-7b-v1.3' for vicuna-7b-v1.3, or make them with "
    "`specdec train medusa`"
)


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        heads_component(
            "medusa",
            MedusaDrafter,
            MedusaOptions,
            HEADS,
            _NEEDED,
            "Medusa heads: a token further ahead each, from the target's last hidden state",
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "medusa",
            drafter="medusa",
            policy="static_tree",
            options={"policy": {"choices": MC_SIM_7B_63}},
            description="Medusa: heads that draft every depth at once, and its tree of 63 nodes",
        )
    ]


@hookimpl
def specdec_trainers() -> list[Trainer]:
    return [Trainer("medusa", MedusaRecipe, MedusaTraining, "Medusa heads (Medusa-1)")]


@hookimpl
def specdec_checkpoints() -> list[CheckpointKind]:
    return [CheckpointKind(HEADS.name, HEADS.recognises, HEADS.describe)]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.medusa.testing import SUPPORT

    return [*SUPPORT]
