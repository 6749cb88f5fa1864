"""What plugins tell the suite of their parts, and that the suite knows no plugin otherwise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parts import GrownBy
from pydantic import BaseModel, Field

import specdec.testing
from specdec import Component, hookimpl
from specdec.decoding.interfaces import TreeGrower
from specdec.decoding.proposal import Proposal
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.expansion import grow_level
from specdec.errors import PluginError
from specdec.plugin.registry import Registry
from specdec.testing import DrafterSupport, PolicySupport, Subject
from specdec.testing.references import ROOT, Children, Node
from specdec.testing.suite import PROPERTIES, check

REFERENCE, VALUES, FRESH = "tree_is_the_reference", "values_are_products", "drafter_is_as_if_fresh"
# First-party names that are words of the language too: in specdec.testing they may be anything but
# a string of their own.
WORDS = {"auto", "chain", "lookup", "sampled", "typical"}


class FanOptions(BaseModel, frozen=True, extra="forbid"):
    width: int = Field(3, ge=1, description="children of the root")


class Fan(TreeGrower):
    """One level: some children of the root."""

    levels = 1

    def __init__(self, options: FanOptions) -> None:
        self.width = options.width

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        grow_level(builder, proposal, self.width)
        builder.advance_best(self.width)


def fan(options: Any, levels: int, children: Children) -> list[Node]:
    return children(ROOT)[: options.width]


def too_wide(options: Any, levels: int, children: Children) -> list[Node]:
    return children(ROOT)[: options.width + 1]


class FanPlugin:
    """The policy ``fan`` and what is said of it, if anything."""

    __name__ = "fans"

    def __init__(self, *support: object) -> None:
        self.support = list(support)

    @hookimpl
    def specdec_tree_policies(self) -> list[Component]:
        return [
            Component(
                "fan",
                lambda options: GrownBy(lambda: Fan(options)),
                FanOptions,
                "some children of the root",
            )
        ]

    @hookimpl
    def specdec_test_support(self) -> list[object]:
        return self.support


def subject(*support: object, **more: Any) -> Subject:
    plugins = [FanPlugin(*support)]
    return Subject("eagle2", drafter="table", policy="fan", plugins=plugins, **more)


def failure(of: Subject, name: str) -> str | None:
    (prop,) = [prop for prop in PROPERTIES if prop.name == name]
    assert prop.excuse(of) is None
    return check(of, prop, examples=20, shrink=False).failure


def concerned(of: Subject) -> set[str]:
    return {prop.name for prop in PROPERTIES if prop.excuse(of) is None}


def test_a_policy_is_compared_with_the_reference_that_its_plugin_gives() -> None:
    assert REFERENCE not in concerned(subject())
    assert failure(subject(PolicySupport("fan", reference=fan)), REFERENCE) is None
    wrong = failure(subject(PolicySupport("fan", reference=too_wide)), REFERENCE)
    assert wrong is not None and "the reference has" in wrong


def test_the_reference_of_a_contract_comes_before_that_of_the_plugin() -> None:
    said = PolicySupport("fan", reference=too_wide)
    assert failure(subject(said, reference=fan), REFERENCE) is None


def test_small_options_are_those_that_the_plugin_gives() -> None:
    small = subject(PolicySupport("fan", small={"width": 1}))
    assert small.small == {"width": 1} and "width=1 instead" in small.describe()
    assert subject().small is None


def test_options_that_were_given_stand_beside_the_small_ones() -> None:
    coupled = Subject("eagle2", drafter="table", options={"policy": {"coupled": True}})
    assert coupled.small == {"depth": 3, "top_k": 2, "budget": 4, "coupled": True}
    wide = Subject("eagle2", drafter="table", options={"policy": {"top_k": 3, "budget": 5}})
    assert wide.small == {"depth": 3, "top_k": 3, "budget": 5}
    said = PolicySupport("fan", small={"width": 1})
    assert subject(said, options={"policy": {"width": 2}}).small is None


def test_a_policy_is_adaptive_if_its_plugin_says_so_of_its_options() -> None:
    said = PolicySupport("fan", reference=fan, adaptive=lambda options: options.width > 1)
    assert not {REFERENCE, FRESH} & concerned(subject(said))
    assert {REFERENCE, FRESH} <= concerned(subject(said, options={"policy": {"width": 1}}))


def test_values_are_made_of_what_the_plugin_says() -> None:
    def flat(builder: TreeBuilder, proposal: Proposal) -> Proposal:
        return Proposal(proposal.logits * 0.5, proposal.columns)

    assert failure(subject(), VALUES) is None
    assert failure(subject(PolicySupport("fan", confidence=lambda _: flat)), VALUES) is not None
    assert VALUES not in concerned(subject(PolicySupport("fan", confidence=lambda _: None)))


@pytest.mark.parametrize(
    ("support", "said"),
    [
        ([PolicySupport("fans")], "'fans'.*unknown policy 'fans': did you mean 'fan'"),
        ([PolicySupport("fan"), PolicySupport("fan")], "'fans' and 'fans' both.*policy 'fan'"),
        ([PolicySupport("eagle2")], "'eagle2' and 'fans' both support the policy 'eagle2'"),
        ([DrafterSupport("fan")], "unknown drafter 'fan'"),
        (["fan"], "'fan' from specdec_test_support.*list of DrafterSupport or PolicySupport"),
    ],
)
def test_support_that_cannot_be_used_is_refused(support: list[object], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        subject(*support)


def test_support_of_one_name_in_two_roles_is_fine() -> None:
    assert subject(PolicySupport("fan"), DrafterSupport("table")).small is None


def named_in(source: str, names: set[str]) -> Iterator[str]:
    """The names that a module has as a string, in quotes or, if they are no plain words, at all."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in names:
            yield str(node.value)
    for name in names:
        if re.search(rf"[\"'`]{name}[\"'`]" if name in WORDS else rf"\b{name}\b", source):
            yield name


def first_party() -> set[str]:
    """The names of all parts and strategies that the packages below ``plugins`` register."""
    registry = Registry.load()
    ours = {
        name
        for name, plugin in registry.manager.list_name_plugin()
        if getattr(plugin, "__name__", "").startswith("specdec_plugins.")
    }
    return {name for (_, name), origin in registry.origins.items() if origin in ours}


def test_nothing_in_the_suite_names_a_part_of_a_plugin() -> None:
    names = first_party()
    assert {"eagle", "eagle2", "auto", "static_tree", "draft_model", "lookup"} <= names
    modules = sorted(Path(specdec.testing.__file__).parent.rglob("*.py"))
    assert len(modules) > 30
    found = {
        module.name: sorted(said)
        for module in modules
        if (said := set(named_in(module.read_text(encoding="utf-8"), names)))
    }
    assert not found, "a plugin says it with the hook specdec_test_support"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('SMALL = {"chain": 3}', {"chain"}),
        ('"""As in ``eagle2``."""', {"eagle2"}),
        ("def eagle2(options): ...", {"eagle2"}),
        ("from itertools import chain\nchain(sampled)", set()),
    ],
)
def test_a_name_in_the_suite_would_be_found(source: str, said: set[str]) -> None:
    assert set(named_in(source, {"eagle2", "chain", "sampled"})) == said


def test_everything_that_the_package_exports_is_there() -> None:
    assert all(getattr(specdec.testing, name) is not None for name in specdec.testing.__all__)
