"""EAGLE-2: the EAGLE head as drafter and the dynamic draft tree as policy."""

from __future__ import annotations

from specdec.plugin.components import Component, Strategy, Trainer, hookimpl
from specdec_plugins.eagle2.drafter import NEEDED, EagleDrafter, EagleOptions
from specdec_plugins.eagle2.policy import Eagle2Options, Eagle2Policy
from specdec_plugins.eagle2.training import EagleTraining, make_recipe


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "eagle",
            EagleDrafter,
            EagleOptions,
            "EAGLE-1/2 head on the target's hidden states",
            needs_checkpoint=NEEDED,
        )
    ]


@hookimpl
def specdec_tree_policies() -> list[Component]:
    return [
        Component(
            "eagle2",
            Eagle2Policy,
            Eagle2Options,
            "dynamic tree: expand by value, rerank to a budget (EAGLE-2)",
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "eagle2",
            drafter="eagle",
            policy="eagle2",
            description="EAGLE-2: an EAGLE head and a tree that follows its confidence",
        )
    ]


@hookimpl
def specdec_trainers() -> list[Trainer]:
    return [
        Trainer("eagle", make_recipe, EagleTraining, "EAGLE head on the target's hidden states"),
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.eagle2.testing import SUPPORT

    return [*SUPPORT]
