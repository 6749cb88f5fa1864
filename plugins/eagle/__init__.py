"""EAGLE heads as drafters: EAGLE-1, EAGLE-2, HASS and EAGLE-3, from any published checkpoint."""

from __future__ import annotations

from specdec.plugin.components import Component, hookimpl
from specdec_plugins.eagle.drafter import NEEDED, EagleDrafter, EagleOptions


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "eagle",
            EagleDrafter,
            EagleOptions,
            "EAGLE-1/2 head on the target's hidden states",
            needs_checkpoint=NEEDED,
        ),
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.eagle.testing import SUPPORT

    return [*SUPPORT]
