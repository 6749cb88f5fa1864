"""Which part fills each role, and its options: the strategy's, the model's, the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from specdec.decoding import Parts
from specdec.errors import OptionError, UnknownNameError
from specdec.plugins import ModelAlias, Strategy
from specdec.registry import ROLES, Registry, Role
from specdec.roles import Acceptor, Drafter
from specdec.target import HFTarget

OptionsByRole = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Selection:
    """The parts of an engine, by name.

    Attributes:
        strategy: what the choice started from.
        names: the part in each role, None for a role that stays empty.
        options: for each role what differs from the part's own defaults.
        parsed: the same as the part takes them, checked.
    """

    strategy: Strategy
    names: dict[Role, str | None]
    options: dict[Role, dict[str, Any]]
    parsed: dict[Role, BaseModel]

    def make(self, registry: Registry, target: HFTarget) -> Parts:
        """Make the parts.

        Raises:
            OptionError: parts that do not go together.
        """
        made: dict[str, Any] = dict.fromkeys(ROLES)
        for role, parsed in self.parsed.items():
            component = registry.component(role, self.names[role] or "")
            with torch.no_grad():
                arguments = (parsed, target) if role == "drafter" else (parsed,)
                made[role] = component.factory(*arguments)
        drafter = made["drafter"]
        if drafter is not None and made["policy"] is None and type(drafter).tree is Drafter.tree:
            raise OptionError(
                f"the drafter {self.names['drafter']!r} drafts node by node and needs a tree "
                f"policy: {', '.join(registry.components['policy'])}"
            )
        if made["policy"] is not None and type(drafter).propose is Drafter.propose:
            if self.names["policy"] != self.strategy.policy:
                raise OptionError(
                    f"the drafter {self.names['drafter']!r} gives whole trees: it takes no policy, "
                    f"{self.names['policy']!r} was given"
                )
            made["policy"] = None  # the strategy's own was meant for the drafter that was replaced
        if (policy := made["policy"]) is not None and policy.coupled:
            _check_coupled(self.names, made["acceptor"])
        return Parts(drafter, made["policy"], made["verifier"], made["acceptor"])


def _check_coupled(names: Mapping[Role, str | None], acceptor: Acceptor) -> None:
    """Refuse drafts that depend on the target's noise where another draw than that decides."""
    if not acceptor.seed_exact:
        raise OptionError(
            f"the policy {names['policy']!r} drafts with the noise of the target's own draws "
            f"(coupled), which decides nothing under the acceptor {names['acceptor']!r}. Use "
            "acceptor='match', the option coupled=False, or another strategy such as eagle2"
        )


def select(
    registry: Registry,
    alias: ModelAlias | None,
    strategy: str,
    *,
    drafter: str | Path | None,
    swaps: Mapping[Role, str | None],
    options: OptionsByRole,
) -> Selection:
    """Resolve names and options.

    Options come from the strategy, then from the model's alias, then from the user; the first two
    only count for parts that have not been swapped.

    Raises:
        UnknownNameError: a strategy, part, role or option that does not exist.
        OptionError: a value that is not allowed, or something that the strategy has no use for.
    """
    if not isinstance(options, Mapping):
        raise OptionError(f"options are given by role, {{'policy': {{...}}}}, not {options!r}")
    chosen = registry.strategy(strategy)
    for role, own_options in dict(options).items():
        if role not in ROLES:
            raise UnknownNameError("role", role, ROLES, "Options are given by role")
        if not isinstance(own_options, Mapping):
            raise OptionError(f"options of the {role} must be a mapping, not {own_options!r}")
    own: dict[Role, str | None] = {role: getattr(chosen, role) for role in ROLES}
    names = {role: swaps.get(role) or own[role] for role in ROLES}
    checkpoint = None
    if drafter is not None:
        names["drafter"], checkpoint = _drafter(registry, chosen, drafter)
    fitting = alias.options.get(strategy, {}) if alias else {}
    resolved: dict[Role, dict[str, Any]] = {}
    for role in ROLES:
        layers = [options.get(role, {})]
        if names[role] == own[role]:
            layers = [chosen.options.get(role, {}), fitting.get(role, {}), *layers]
        resolved[role] = {name: value for layer in layers for name, value in layer.items()}
        if names[role] is None and resolved[role]:
            raise OptionError(f"the strategy {strategy!r} has no {role}: it takes no such options")
    if names["drafter"] is None and names["policy"] is not None:
        raise OptionError(f"the strategy {strategy!r} drafts nothing: it has no use for a policy")
    if checkpoint and "checkpoint" in options.get("drafter", {}):
        raise OptionError("the drafter's checkpoint is given twice: as drafter and in its options")
    if checkpoint:
        resolved["drafter"]["checkpoint"] = checkpoint
    elif known := alias.drafters.get(names["drafter"] or "") if alias else None:
        resolved["drafter"].setdefault("checkpoint", known)
    parsed = {
        role: registry.options(role, registry.component(role, name), resolved[role])
        for role, name in names.items()
        if name is not None
    }
    return Selection(chosen, names, resolved, parsed)


def _drafter(registry: Registry, strategy: Strategy, given: str | Path) -> tuple[str, str | None]:
    """The drafter that was meant, and its checkpoint if that is what was given."""
    known = registry.components["drafter"]
    if str(given) in known:
        return str(given), None
    if "/" not in str(given) and not Path(given).expanduser().exists():
        raise UnknownNameError(
            "drafter", str(given), known, "A folder or hub id of a checkpoint does as well"
        )
    if strategy.drafter is None:
        raise OptionError(f"the strategy {strategy.name!r} drafts nothing: it takes no drafter")
    return strategy.drafter, str(given)
