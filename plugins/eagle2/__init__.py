"""EAGLE-2's dynamic draft tree as policy, and the strategies that grow it from an EAGLE head."""

from __future__ import annotations

from specdec.plugin.components import Component, Strategy, hookimpl
from specdec_plugins.eagle2.policy import Eagle2Options, Eagle2Policy


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
        ),
        Strategy(
            "eagle3",
            drafter="eagle3",
            policy="eagle2",
            description="EAGLE-3: a head on hidden states of several layers, and EAGLE-2's tree",
        ),
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.eagle2.testing import SUPPORT

    return [*SUPPORT]
