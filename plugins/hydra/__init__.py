"""Hydra heads: several tokens ahead, each of which reads the draft tokens before it."""

from __future__ import annotations

from specdec.drafting.heads_drafter import heads_component
from specdec.drafting.sparse_tree import MC_SIM_7B_63
from specdec.plugin.components import CheckpointKind, Component, Strategy, Trainer, hookimpl
from specdec_plugins.hydra.checkpoint import HEADS
from specdec_plugins.hydra.drafter import HydraDrafter, HydraOptions
from specdec_plugins.hydra.training import HydraRecipe, HydraTraining

_NEEDED = (
    "Hydra heads: give drafter=<folder or hub id> of some trained for the model, or make them with "
    "`specdec train hydra`"
)


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        heads_component(
            "hydra",
            HydraDrafter,
            HydraOptions,
            HEADS,
            _NEEDED,
            "Hydra heads: a token further ahead each, from hidden state and draft tokens",
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "hydra",
            drafter="hydra",
            policy="static_tree",
            options={"policy": {"choices": MC_SIM_7B_63}},
            description="Hydra: heads that read the draft tokens so far, and its tree of 63 nodes",
        )
    ]


@hookimpl
def specdec_trainers() -> list[Trainer]:
    return [Trainer("hydra", HydraRecipe, HydraTraining, "Hydra or Hydra++ heads")]


@hookimpl
def specdec_checkpoints() -> list[CheckpointKind]:
    return [CheckpointKind(HEADS.name, HEADS.recognises, HEADS.describe)]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.hydra.testing import SUPPORT

    return [*SUPPORT]
