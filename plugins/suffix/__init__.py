"""SuffixDecoding: draft trees from a suffix index of the text, without a network."""

from __future__ import annotations

from specdec.plugin.components import Component, Strategy, hookimpl
from specdec_plugins.suffix.drafter import SuffixDrafter, SuffixOptions


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "suffix",
            SuffixDrafter,
            SuffixOptions,
            "trees of what followed the last tokens before",
            repeatable={"size_by_cost": False},
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "suffix",
            drafter="suffix",
            description="SuffixDecoding: no network; trees by how often a token followed",
        )
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.suffix.testing import SUPPORT

    return [*SUPPORT]
