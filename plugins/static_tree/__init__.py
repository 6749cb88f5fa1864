"""Fixed draft trees, EAGLE-1's among them."""

from __future__ import annotations

from specdec.plugin.components import Component, Strategy, hookimpl
from specdec_plugins.static_tree.policies import (
    ChainOptions,
    KaryOptions,
    StaticOptions,
    chain,
    kary_tree,
    static_tree,
)


@hookimpl
def specdec_tree_policies() -> list[Component]:
    return [
        Component(
            "static_tree", static_tree, StaticOptions, "a fixed tree, given as data (EAGLE-1)"
        ),
        Component("kary_tree", kary_tree, KaryOptions, "every node has k children"),
        Component("chain", chain, ChainOptions, "one draft token below the other"),
    ]


@hookimpl
def specdec_strategies() -> list[Strategy]:
    return [
        Strategy(
            "static_tree",
            drafter="eagle",
            policy="static_tree",
            description="EAGLE-1: an EAGLE head and its fixed tree of 25 nodes",
        ),
        Strategy(
            "chain", drafter="eagle", policy="chain", description="an EAGLE head, drafts in a chain"
        ),
    ]


@hookimpl
def specdec_test_support() -> list[object]:
    from specdec_plugins.static_tree.testing import SUPPORT

    return [*SUPPORT]
