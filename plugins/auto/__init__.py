"""The strategy ``auto``: calibrated values, coupled drafts, trees that fit the machine."""

from __future__ import annotations

from specdec.plugin.components import Component, Strategy, hookimpl
from specdec_plugins.auto.policy import AutoOptions, AutoPolicy


@hookimpl
def specdec_tree_policies() -> list[Component]:
    return [
        Component(
            "auto",
            AutoPolicy,
            AutoOptions,
            "dynamic tree: learned acceptance, coupled drafts, size by measured cost",
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "auto",
            drafter="eagle",
            policy="auto",
            description="an EAGLE head and a tree that learns what is accepted and what it costs; "
            "without a head: drafts from the text itself",
            without_drafter={"policy": {"use_drafter": False}},
        )
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.auto.testing import SUPPORT

    return [*SUPPORT]
