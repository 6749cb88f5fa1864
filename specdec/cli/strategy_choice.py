"""The choice of strategies, parts and options on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specdec.errors import OptionError, UnknownNameError
from specdec.plugin import ROLES

if TYPE_CHECKING:
    from specdec.plugin.registry import Registry

PLAIN = "plain"


@dataclass(frozen=True)
class StrategyChoice:
    """One strategy with the parts and options that replace its own.

    Attributes:
        strategy: its name.
        swaps: names of other parts by role.
        options: options of the parts by role.
    """

    strategy: str
    swaps: Mapping[str, str | None] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether this is plain decoding with none of its parts replaced."""
        return self.strategy == PLAIN and not any(self.swaps.values())

    def arguments(self) -> dict[str, Any]:
        """What ``Engine`` and ``Engine.with_strategy`` take."""
        return {"strategy": self.strategy, **self.swaps, "options": self.options}


def choose(
    registry: Registry,
    strategies: Sequence[str],
    swaps: Mapping[str, str | None],
    options: Mapping[str, Any],
) -> list[StrategyChoice]:
    """Check the names and hand every option to the strategies that it belongs to.

    Args:
        strategies: by name; those called ``plain`` get no swaps.
        swaps: names of other parts by role.
        options: values by ``role.option`` (every strategy that has it) or
            ``strategy.role.option``.

    Raises:
        UnknownNameError: a strategy, part, role or option that does not exist.
        OptionError: an option that no strategy here takes, a strategy that is there twice.
    """
    alone = len(strategies) == 1
    choices = []
    for name in strategies:
        registry.strategy(name)
        if strategies.count(name) > 1:
            raise OptionError(f"{name!r} is there twice: name each strategy once")
        choices.append(StrategyChoice(name, dict(swaps) if alone or name != PLAIN else {}))
    for role, part in swaps.items():
        if part is not None and role != "drafter":
            registry.component(role, part)  # type: ignore[arg-type]
    for key, value in options.items():
        _assign(registry, choices, key, value)
    return choices


def _assign(registry: Registry, choices: Sequence[StrategyChoice], key: str, value: Any) -> None:
    *scope, role, option = ["", *key.split(".", 2)][-3:]
    if not role:
        raise OptionError(f"-o {key!r}: write role.option=value, with a role of {', '.join(ROLES)}")
    if role not in ROLES:
        raise UnknownNameError("role", role, ROLES, "options are given by role")
    if wanted := scope[0]:
        registry.strategy(wanted)
        choices = [choice for choice in choices if choice.strategy == wanted]
        if not choices:
            raise OptionError(f"-o {key!r}: the strategy {wanted!r} does not run here")
    parts = {c.strategy: _component(registry, c, role) for c in choices}
    having = [p for p in parts.values() if p is not None]
    if not having:
        names = ", ".join(repr(choice.strategy) for choice in choices)
        raise OptionError(f"-o {key!r}: the strategy {names} has no {role}")
    takers = [
        choice
        for choice in choices
        if (part := parts[choice.strategy]) and option in part.options.model_fields
    ]
    if not takers:
        registry.options(role, having[0], {option: value})  # says which options there are
    for choice in takers:
        choice.options.setdefault(role, {})[option] = value


def _component(registry: Registry, choice: StrategyChoice, role: Any) -> Any:
    """The part that the choice has in a role; None without one."""
    chosen = registry.strategy(choice.strategy)
    swap = choice.swaps.get(role)
    if role == "drafter" and swap not in registry.components["drafter"]:
        swap = None  # a checkpoint of the strategy's own drafter
    return registry.component(role, swap) if swap else registry.part(chosen, role)
