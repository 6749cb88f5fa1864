"""The registry: installed components, strategies and model aliases, by name and origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pluggy
from pydantic import BaseModel

from specdec.errors import PluginError, UnknownNameError
from specdec.plugin import DEFAULT_STRATEGY, ROLES, Role
from specdec.plugin.components import CheckpointKind, Component, ModelAlias, Strategy, Trainer
from specdec.plugin.manager import PluginInfo, collected, plugin_manager
from specdec.plugin.options import checked_options

_HOOKS = {
    "drafter": "specdec_drafters",
    "policy": "specdec_tree_policies",
    "verifier": "specdec_verifiers",
    "acceptor": "specdec_acceptors",
}


@dataclass
class Registry:
    """Components by role and name, strategies, model aliases, trainers and where each comes from.

    Build one with :meth:`load`.
    """

    manager: pluggy.PluginManager
    plugins: list[PluginInfo]
    components: dict[Role, dict[str, Component]]
    strategies: dict[str, Strategy]
    models: dict[str, ModelAlias]
    trainers: dict[str, Trainer] = field(default_factory=dict)
    origins: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def load(cls, extra: Iterable[object] = ()) -> Registry:
        """Collect everything that is installed, and the plugin objects ``extra``.

        Raises:
            PluginError: two plugins that register one name, both of them named; a hook that
                returns something else than what its specification says.
        """
        manager, plugins = plugin_manager(extra)
        origins: dict[tuple[str, str], str] = {}

        def collect(kind: str, hook: str, wanted: type[Any]) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for plugin, item in collected(manager, hook, (wanted,)):
                if item.name in found:
                    raise PluginError(
                        f"plugins {origins[kind, item.name]!r} and {plugin!r} both register "
                        f"the {kind} {item.name!r}: uninstall one of them"
                    )
                found[item.name] = item
                origins[kind, item.name] = plugin
            return dict(sorted(found.items()))

        return cls(
            manager=manager,
            plugins=plugins,
            components={role: collect(role, _HOOKS[role], Component) for role in ROLES},
            strategies=collect("strategy", "specdec_strategies", Strategy),
            models=collect("model", "specdec_models", ModelAlias),
            trainers=collect("trainer", "specdec_trainers", Trainer),
            origins=origins,
        )

    def checkpoint_kinds(self) -> list[CheckpointKind]:
        """The kinds of checkpoints that plugins know.

        Raises:
            PluginError: a hook that fails or returns something else.
        """
        return [
            kind for _, kind in collected(self.manager, "specdec_checkpoints", (CheckpointKind,))
        ]

    def strategy(self, name: str) -> Strategy:
        """The strategy of that name.

        Raises:
            UnknownNameError: with the nearest match.
        """
        default = "It is the default, and no plugin that is installed registers it: name another"
        hint = default if name == DEFAULT_STRATEGY else ""
        found: Strategy = self._find("strategy", name, self.strategies, hint)
        return found

    def component(self, role: Role, name: str) -> Component:
        """The component of that role and name.

        Raises:
            UnknownNameError: with the nearest match.
        """
        found: Component = self._find(role, name, self.components[role])
        return found

    def trainer(self, name: str) -> Trainer:
        """The trainer of that name.

        Raises:
            UnknownNameError: with the nearest match.
        """
        found: Trainer = self._find("trainer", name, self.trainers)
        return found

    def part(self, strategy: Strategy, role: Role) -> Component | None:
        """The component that the strategy names for the role; None if it names none.

        Raises:
            UnknownNameError: no plugin that is installed registers it.
        """
        if (name := getattr(strategy, role)) is None:
            return None
        hint = (
            f"The strategy {strategy.name!r} needs it, and no plugin that is installed registers "
            f"it. Strategies whose parts are all there: {', '.join(self.complete())}"
        )
        found: Component = self._find(role, name, self.components[role], hint)
        return found

    def complete(self) -> list[str]:
        """The strategies whose parts are all registered."""
        return [
            name
            for name, strategy in self.strategies.items()
            if all(getattr(strategy, role) in (None, *self.components[role]) for role in ROLES)
        ]

    def _find(self, kind: str, name: str, known: Mapping[str, Any], hint: str = "") -> Any:
        if name not in known:
            broken = "; ".join(f"plugin {p.name}: {p.error}" for p in self.plugins if p.error)
            raise UnknownNameError(kind, name, known, ". ".join(filter(None, (hint, broken))))
        return known[name]

    def options(
        self,
        role: Role | Literal["trainer"],
        component: Component | Trainer,
        given: Mapping[str, Any],
    ) -> BaseModel:
        """The component's, or trainer's, options with ``given`` applied.

        Raises:
            UnknownNameError: an option that the component does not have.
            OptionError: a value that it does not allow.
        """
        return checked_options(
            component.options,
            given,
            f"option of the {role} {component.name!r}:",
            prefix=f"{role}.",
            owner=component.name,
        )
