"""Lookahead decoding: n-grams that the target itself makes while it verifies."""

from __future__ import annotations

from specdec.plugin.components import Component, Strategy, hookimpl
from specdec_plugins.lookahead.drafter import LookaheadDrafter, LookaheadOptions


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "lookahead",
            LookaheadDrafter,
            LookaheadOptions,
            "n-grams that the target makes in a window next to the tree",
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "lookahead",
            drafter="lookahead",
            description="lookahead decoding: no network, but wider target forwards",
        )
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.lookahead.testing import SUPPORT

    return [*SUPPORT]
