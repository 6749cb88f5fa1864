"""Prompt lookup: drafts from the text itself, without a network."""

from __future__ import annotations

from specdec.plugin.components import Component, Strategy, hookimpl
from specdec_plugins.lookup.drafter import LookupDrafter, LookupOptions


@hookimpl
def specdec_drafters() -> list[Component]:
    return [
        Component(
            "lookup",
            LookupDrafter,
            LookupOptions,
            "what followed the last tokens earlier on",
            repeatable={"size_by_cost": False},
        )
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "lookup",
            drafter="lookup",
            description="prompt lookup: no network; pays where a text repeats itself",
        )
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.lookup.testing import SUPPORT

    return [*SUPPORT]
