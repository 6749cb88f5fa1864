"""What the suite is told of parts by the plugins that they belong to: ``specdec_test_support``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from specdec.drafting.coupling import couple
from specdec.errors import PluginError, UnknownNameError
from specdec.plugin import Role
from specdec.plugin.manager import collected
from specdec.plugin.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from specdec.decoding.proposal import Proposal
    from specdec.decoding.tree_builder import TreeBuilder
    from specdec.testing.references import Reference
    from specdec.testing.tables import Table

# Saves a checkpoint that fits the target model into the folder, and returns what names it.
Provider = Callable[["PreTrainedModel", Path], str]
# The distribution whose probabilities a level's values are multiplied by, from its frontier's
# proposal.
Confidence = Callable[["TreeBuilder", "Proposal"], "Proposal"]


def draft_distribution(builder: TreeBuilder, proposal: Proposal) -> Proposal:
    """The draft distribution itself."""
    return proposal


def guess_where_coupled(options: Any) -> Confidence:
    """For a policy with the option ``coupled``: the guess at the target's own draw where it is set,
    else the draft distribution."""
    return couple if options.coupled else draft_distribution


@dataclass(frozen=True)
class DrafterSupport:
    """What the suite needs to know of a drafter.

    Attributes:
        name: of the drafter.
        checkpoint: of a drafter that needs one: saves one that fits the given target model into
            the given folder, and returns what its option ``checkpoint`` is to be. The models are
            table models and small transformers models.
        set_table: of a drafter whose distribution can be a table: lets it draft from the given
            table, and returns whether it does.
        remembers: whether drafts depend on the steps in which the text was committed, so that they
            need not be those of a drafter that has just begun on the same text.
        options: options that it is examined with unless others are given: those that make its
            drafts a function of the texts alone, where they may depend on the clock.
        adaptive: from the drafter's options, whether its drafts depend on how earlier ones fared
            or on what they cost.
    """

    role: ClassVar[Role] = "drafter"
    name: str
    checkpoint: Provider | None = None
    set_table: Callable[[Any, Table], bool] | None = None
    remembers: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    adaptive: Callable[[Any], bool] = lambda options: False


@dataclass(frozen=True)
class PolicySupport:
    """What the suite needs to know of a tree policy.

    Attributes:
        name: of the policy.
        small: options for a vocabulary of 2 to 6 tokens, where the policy's usual tree would hold
            every continuation, so that nothing is ever rejected; None if there are none.
        reference: the policy in plain Python, which its trees are compared with; see
            :mod:`specdec.testing.references`.
        adaptive: from the policy's options, whether its trees depend on how earlier drafts fared
            or on what they cost.
        confidence: from the policy's options, what the values of its trees are made of; None where
            that is learned, so that only the policy knows it.
    """

    role: ClassVar[Role] = "policy"
    name: str
    small: Mapping[str, Any] | None = None
    reference: Reference | None = None
    adaptive: Callable[[Any], bool] = lambda options: False
    confidence: Callable[[Any], Confidence | None] = lambda options: draft_distribution


@dataclass(frozen=True)
class Support:
    """What plugins say of their parts, by name; a part that nothing is said of has the defaults."""

    drafters: Mapping[str, DrafterSupport]
    policies: Mapping[str, PolicySupport]

    @classmethod
    def of(cls, registry: Registry) -> Support:
        """Ask the plugins.

        Raises:
            PluginError: something else than support; two plugins that support one part; support
                of a part that nobody registers.
        """
        found: dict[Role, dict[str, Any]] = {"drafter": {}, "policy": {}}
        said: dict[tuple[Role, str], str] = {}
        kinds = (DrafterSupport, PolicySupport)
        for plugin, item in collected(registry.manager, "specdec_test_support", kinds):
            role, name = item.role, item.name
            if name in found[role]:
                raise PluginError(
                    f"plugins {said[role, name]!r} and {plugin!r} both support the {role} {name!r}"
                )
            if name not in registry.components[role]:
                unknown = UnknownNameError(role, name, registry.components[role])
                raise PluginError(f"specdec_test_support of plugin {plugin!r}: {unknown}")
            found[role][name], said[role, name] = item, plugin
        return cls(found["drafter"], found["policy"])

    def drafter(self, name: str | None) -> DrafterSupport:
        """Of the drafter of that name, or of none."""
        return self.drafters.get(name or "") or DrafterSupport(name or "")

    def policy(self, name: str | None) -> PolicySupport:
        """Of the tree policy of that name, or of none."""
        return self.policies.get(name or "") or PolicySupport(name or "")
