"""Selection of the part for each role, with options of the strategy, the model and the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from specdec.decoding.interfaces import Acceptor, LevelDrafter, TreeDrafter
from specdec.decoding.parts import Parts
from specdec.errors import CheckpointError, OptionError, PluginError, UnknownNameError
from specdec.models.checkpoints import resolve_checkpoint
from specdec.models.hf_target import HFTarget
from specdec.models.loaded_model import unwrapped
from specdec.plugin import ROLES, Role
from specdec.plugin.components import ModelAlias, Strategy
from specdec.plugin.registry import Registry

OptionsByRole = Mapping[str, Mapping[str, Any]]
# What parts say of themselves, True or False: what is exact together is decided by it.
_SAID: Mapping[Role, tuple[str, ...]] = {
    "drafter": ("depends_on_own_row_only",),
    "policy": ("coupled", "depends_on_own_row_only"),
    "verifier": ("uses_cache",),
    "acceptor": ("lossless", "seed_exact"),
}


@dataclass(frozen=True)
class Choice:
    """What is asked of an engine: a strategy, and what takes the place of its parts.

    Attributes:
        strategy: its name.
        drafter: name of another drafter, or the folder, hub id or loaded model that it is made of.
        policy, verifier, acceptor: names of other parts than the strategy's.
        options: of the parts, by role.
    """

    strategy: str
    drafter: str | Path | nn.Module | None = None
    policy: str | None = None
    verifier: str | None = None
    acceptor: str | None = None
    options: OptionsByRole | None = None


@dataclass(frozen=True)
class Selection:
    """The parts of an engine, by name.

    Attributes:
        strategy: what the choice started from.
        names: the part in each role, None for a role that stays empty.
        options: for each role what differs from the part's own defaults.
        parsed: the same as the part takes them, checked.
        notice: a warning about the choice; empty if there is none.
    """

    strategy: Strategy
    names: dict[Role, str | None]
    options: dict[Role, dict[str, Any]]
    parsed: dict[Role, BaseModel]
    notice: str = ""

    @property
    def checkpoint(self) -> object:
        """What the drafter is made of; None if it is made of nothing."""
        return self.options["drafter"].get("checkpoint")

    def make(self, registry: Registry, target: HFTarget) -> Parts:
        """Make the parts.

        Raises:
            OptionError: parts that do not go together.
            PluginError: a drafter that is none, or a part that does not say True or False of
                itself where it must.
        """
        made: dict[str, Any] = dict.fromkeys(ROLES)
        for role, parsed in self.parsed.items():
            component = registry.component(role, self.names[role] or "")
            with torch.no_grad():
                arguments = (parsed, target) if role == "drafter" else (parsed,)
                made[role] = component.factory(*arguments)
        drafter = made["drafter"]
        if isinstance(drafter, LevelDrafter) and made["policy"] is None:
            raise OptionError(
                f"the drafter {self.names['drafter']!r} drafts level by level and needs a tree "
                f"policy: {', '.join(registry.components['policy'])}"
            )
        if isinstance(drafter, TreeDrafter) and made["policy"] is not None:
            if self.names["policy"] != self.strategy.policy:
                raise OptionError(
                    f"the drafter {self.names['drafter']!r} gives whole trees: it takes no policy, "
                    f"{self.names['policy']!r} was given"
                )
            made["policy"] = None  # the strategy's own was meant for the drafter that was replaced
        if not isinstance(drafter, (LevelDrafter, TreeDrafter, NoneType)):
            raise PluginError(
                f"the drafter {self.names['drafter']!r} is a {type(drafter).__name__}: its factory "
                "must make a LevelDrafter or a TreeDrafter"
            )
        for role, name in self.names.items():
            if made[role] is not None:
                _check_said(role, name, made[role])
        if (policy := made["policy"]) is not None and policy.coupled:
            _check_coupled(self.names, made["acceptor"])
        for role in ("drafter", "policy"):
            if made[role] is not None and not made[role].depends_on_own_row_only:
                _check_own_row_only(role, self.names, made["acceptor"])
        return Parts(drafter, made["policy"], made["verifier"], made["acceptor"])


def _check_said(role: Role, name: str | None, part: Any) -> None:
    """Refuse words where True or False is needed ("no" would count as true), and an old name."""
    if hasattr(part, "by_text_alone"):
        raise PluginError(
            f"the {role} {name!r} says by_text_alone, which is depends_on_own_row_only by now: "
            f"rename it in {type(part).__name__}"
        )
    for said in _SAID[role]:
        if not isinstance(value := getattr(part, said), bool):
            raise PluginError(
                f"the {role} {name!r} has {said}={value!r:.80}: {type(part).__name__}.{said} must "
                "be True or False"
            )


def _check_coupled(names: Mapping[Role, str | None], acceptor: Acceptor) -> None:
    """Refuse drafts that depend on the target's noise where another draw than that decides."""
    if not acceptor.seed_exact:
        raise OptionError(
            f"the policy {names['policy']!r} drafts with the noise of the target's own draws "
            f"(coupled), which decides nothing under the acceptor {names['acceptor']!r}. Use "
            "acceptor='match', the option coupled=False, or another strategy such as eagle2"
        )


def _check_own_row_only(role: Role, names: Mapping[Role, str | None], acceptor: Acceptor) -> None:
    """Refuse drafts that depend on what the same random numbers decided in another text."""
    if not acceptor.seed_exact:
        raise OptionError(
            f"the {role} {names[role]!r} drafts, with these options, by other texts or by the "
            f"clock: under the acceptor {names['acceptor']!r}, whose draws depend on the drafts, "
            "a seed would not repeat a run, and texts of one seed would be biased. Use "
            "acceptor='match', options that turn this off (size_by_cost=False, calibrated=False, "
            "earlier_tokens=0), or another strategy such as eagle2"
        )


def select(
    registry: Registry, alias: ModelAlias | None, choice: Choice, *, on_cpu: bool = True
) -> Selection:
    """Resolve names and options.

    Options come from the strategy, then from the model's alias, then from the user; the first two
    only count for parts that have not been swapped, and the alias's of the drafter only for the
    checkpoint that it names. Where the strategy's own drafter needs a
    checkpoint and none is known, a strategy that can do without a drafter does.

    Args:
        on_cpu: whether the target is on a CPU, for which an alias may have further options.

    Raises:
        UnknownNameError: a strategy, part, role or option that does not exist.
        OptionError: a value that is not allowed, something that the strategy has no use for, or a
            drafter without the checkpoint that it needs.
    """
    strategy, drafter = choice.strategy, choice.drafter
    options = {} if choice.options is None else choice.options
    if not isinstance(options, Mapping):
        raise OptionError(f"options are given by role, {{'policy': {{...}}}}, not {options!r}")
    chosen = registry.strategy(strategy)
    for role, own_options in dict(options).items():
        if role not in ROLES:
            raise UnknownNameError("role", role, ROLES, "Options are given by role")
        if not isinstance(own_options, Mapping):
            raise OptionError(f"options of the {role} must be a mapping, not {own_options!r}")
    own: dict[Role, str | None] = {role: getattr(chosen, role) for role in ROLES}
    names, checkpoint = dict(own), None
    for role in ROLES[1:]:
        if (other := getattr(choice, role)) is not None:
            names[role] = other
    if drafter is not None:
        names["drafter"], checkpoint = _drafter(registry, chosen, drafter)
    for role in ROLES:
        if names[role] == own[role]:
            registry.part(chosen, role)  # refuses a strategy that is not complete
    fitting = alias.fitting(strategy, on_cpu=on_cpu) if alias else {}
    if checkpoint is not None or "checkpoint" in options.get("drafter", {}):
        fitting.pop("drafter", None)
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
    if checkpoint is not None and "checkpoint" in options.get("drafter", {}):
        raise OptionError("the drafter's checkpoint is given twice: as drafter and in its options")
    if checkpoint is not None:
        resolved["drafter"]["checkpoint"] = checkpoint
    elif known := alias.drafters.get(names["drafter"] or "") if alias else None:
        resolved["drafter"].setdefault("checkpoint", known)
    notice = ""
    lacks = _lacks_checkpoint(registry, names["drafter"], resolved["drafter"])
    asked = drafter is not None or options.get("drafter")
    if lacks and not asked and chosen.without_drafter is not None:
        names["drafter"] = None
        for role in ROLES:
            resolved[role] = {**chosen.without_drafter.get(role, {}), **resolved[role]}
        notice = (
            f"no drafter is known for this model: {strategy!r} drafts from the text itself (prompt "
            f"lookup), which pays where a text repeats itself. More comes with {lacks}"
        )
    if not _seed_exact(registry, names["acceptor"], resolved["acceptor"]):
        for role, name in names.items():
            if name is not None:
                own_defaults = registry.component(role, name).repeatable
                resolved[role] = {**own_defaults, **resolved[role]}
    parsed = {
        role: registry.options(role, registry.component(role, name), resolved[role])
        for role, name in names.items()
        if name is not None
    }
    if lacks and not notice:
        raise OptionError(
            f"the drafter {names['drafter']!r} needs {lacks}. Strategies that need none: "
            f"{', '.join(_without_checkpoint(registry))}"
        )
    return Selection(chosen, names, resolved, parsed, notice)


def _seed_exact(registry: Registry, name: str | None, options: Mapping[str, Any]) -> bool:
    """Whether the acceptor draws as plain decoding would."""
    component = registry.component("acceptor", name or "")
    made: Acceptor = component.factory(registry.options("acceptor", component, options))
    _check_said("acceptor", name, made)
    return made.seed_exact


def _lacks_checkpoint(registry: Registry, name: str | None, options: Mapping[str, Any]) -> str:
    """What the drafter needs and has not; empty if nothing."""
    if name is None or options.get("checkpoint") is not None:
        return ""
    return registry.component("drafter", name).needs_checkpoint


def _without_checkpoint(registry: Registry) -> list[str]:
    """The strategies that run without one."""
    return [
        name
        for name in registry.complete()
        if (each := registry.strategies[name]).without_drafter is not None
        or not _lacks_checkpoint(registry, each.drafter, {})
    ]


def _drafter(
    registry: Registry, strategy: Strategy, given: str | Path | nn.Module
) -> tuple[str, str | nn.Module | None]:
    """The drafter that was meant, and its checkpoint if that is what was given."""
    known = registry.components["drafter"]
    if isinstance(given, nn.Module):
        return _taker(registry, strategy, given)
    if not isinstance(given, (str, Path)):
        raise OptionError(
            f"drafter must be a name, a folder, a hub id or a loaded model, not "
            f"{type(given).__name__}"
        )
    if str(given) in known:
        return str(given), None
    bare = "/" not in str(given) and not Path(given).expanduser().exists()
    if strategy.drafter is None:
        if bare:
            raise UnknownNameError("drafter", str(given), known)
        raise OptionError(f"the strategy {strategy.name!r} drafts nothing: it takes no drafter")
    if bare:
        try:
            resolve_checkpoint(str(given), what="drafter")
        except CheckpointError as error:
            hint = f"A folder or hub id of a checkpoint does as well, but {error}"
            raise UnknownNameError("drafter", str(given), known, hint) from error
    return strategy.drafter, str(given)


def _taker(registry: Registry, strategy: Strategy, given: nn.Module) -> tuple[str, nn.Module]:
    """The drafter that takes such a model for its checkpoint, the strategy's own if it does."""
    if strategy.drafter is None:
        raise OptionError(f"the strategy {strategy.name!r} drafts nothing: it takes no drafter")
    names = sorted(registry.components["drafter"], key=lambda name: name != strategy.drafter)
    for model in (given, _within(given)):
        for name in names:
            options = registry.component("drafter", name).options
            if "checkpoint" not in options.model_fields:
                continue
            try:
                options.model_validate({"checkpoint": model})
            except ValidationError:
                continue
            return name, model
    raise OptionError(
        f"no drafter takes a {type(given).__name__}: give a causal language model of transformers, "
        "an EAGLE head, or the folder or hub id of either"
    )


def _within(given: nn.Module) -> nn.Module:
    try:
        model: nn.Module = unwrapped(given)
    except OptionError:
        return given
    return model
