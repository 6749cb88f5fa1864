"""EAGLE heads as drafters: EAGLE-1, EAGLE-2, HASS and EAGLE-3, from any published checkpoint."""

from __future__ import annotations

from specdec.plugin.components import CheckpointKind, Component, Trainer, hookimpl
from specdec_plugins.eagle.drafter import (
    NEEDED,
    NEEDED_3,
    Eagle3Options,
    EagleOptions,
    make_eagle,
    make_eagle3,
)
from specdec_plugins.eagle.recognition import recognises, recognises_eagle3
from specdec_plugins.eagle.training import EagleTraining, make_recipe


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "eagle",
            make_eagle,
            EagleOptions,
            "EAGLE head on the target's hidden states, of EAGLE-1, EAGLE-2 or EAGLE-3",
            needs_checkpoint=NEEDED,
            recognises=recognises,
        ),
        Component(
            "eagle3",
            make_eagle3,
            Eagle3Options,
            "EAGLE-3 head on hidden states of several layers of the target",
            needs_checkpoint=NEEDED_3,
            recognises=recognises_eagle3,
        ),
    ]


@hookimpl
def specdec_trainers() -> list[Trainer]:
    return [
        Trainer("eagle", make_recipe, EagleTraining, "EAGLE head, by one of three recipes"),
    ]


@hookimpl
def specdec_checkpoints() -> list[CheckpointKind]:
    from specdec_plugins.eagle.inspection import HEADS

    return [HEADS]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.eagle.testing import SUPPORT

    return [*SUPPORT]
