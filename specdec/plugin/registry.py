"""The registry: installed components, strategies and model aliases, by name and origin."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pluggy
from pydantic import BaseModel, ValidationError

from specdec.errors import DISTRIBUTION, OptionError, PluginError, UnknownNameError
from specdec.plugin import DEFAULT_STRATEGY, builtin, hookspecs
from specdec.plugin.components import (
    PROJECT,
    CheckpointKind,
    Component,
    ModelAlias,
    Strategy,
    Trainer,
)
from specdec.plugin.deprecations import check_api_version, deprecations_of

_LOG = logging.getLogger(__name__)
Role = Literal["drafter", "policy", "verifier", "acceptor"]
ROLES: tuple[Role, ...] = ("drafter", "policy", "verifier", "acceptor")
_HOOKS = {
    "drafter": "specdec_drafters",
    "policy": "specdec_tree_policies",
    "verifier": "specdec_verifiers",
    "acceptor": "specdec_acceptors",
}


@dataclass(frozen=True)
class PluginInfo:
    """One plugin.

    Attributes:
        name: of the entry point, or the name it was registered under.
        origin: distribution and version.
        hooks: the hooks that it implements.
        error: why it could not be loaded; None if it was.
        deprecations: what it uses that later versions will not have, a sentence each.
    """

    name: str
    origin: str
    hooks: tuple[str, ...] = ()
    error: str | None = None
    deprecations: tuple[str, ...] = ()


def plugin_manager(extra: Iterable[object] = ()) -> tuple[pluggy.PluginManager, list[PluginInfo]]:
    """A fresh manager with the core's own plugin, all entry points and ``extra``.

    An installed plugin whose import fails, that implements a hook that does not exist, or that is
    written for another version of the interface is listed with its error and left out; it does not
    stop the others.

    Raises:
        PluginError: one of ``extra`` that does such a thing.
        OptionError: one of ``extra`` that has no hook.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(builtin, name="builtin")
    origins = {"builtin": _origin(DISTRIBUTION)}
    broken, seen = [], set()
    for entry in importlib.metadata.entry_points(group=PROJECT):
        if (entry.name, entry.value) in seen:
            continue  # one plugin that two distributions name, as where one has been renamed
        seen.add((entry.name, entry.value))
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        try:
            plugin = entry.load()
            check_api_version(plugin)
            manager.register(plugin, name=entry.name)
            try:
                manager.check_pending()
            except pluggy.PluginValidationError:
                manager.unregister(name=entry.name)
                raise
            origins[entry.name] = origin
        except Exception as error:
            _LOG.warning("plugin %s of %s cannot be loaded: %r", entry.name, origin, error)
            broken.append(PluginInfo(entry.name, origin, error=f"{type(error).__name__}: {error}"))
    for plugin in extra:
        if manager.is_registered(plugin):
            continue
        try:
            check_api_version(plugin)
            name = manager.register(plugin)
        except (pluggy.PluginValidationError, PluginError) as error:
            given = getattr(plugin, "__name__", type(plugin).__name__)
            raise PluginError(f"plugin {given!r}: {error}") from error
        if not manager.get_hookcallers(plugin):
            raise OptionError(
                f"plugins has {plugin!r:.200}, which has no hook of specdec: give a module or an "
                "object with functions marked @specdec.hookimpl, such as specdec_strategies"
            )
        origins[str(name)] = "registered by hand"
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error)) from error
    loaded = [
        PluginInfo(
            name,
            origins.get(name, "unknown"),
            tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or ())),
            deprecations=deprecations_of(manager, plugin),
        )
        for name, plugin in manager.list_name_plugin()
        if plugin is not None
    ]
    return manager, loaded + broken


def listed_plugins(plugins: Any) -> list[object]:
    """The plugins that a caller gave.

    Raises:
        OptionError: something else than a list of modules or objects, such as a name.
    """
    if isinstance(plugins, (str, bytes)) or not isinstance(plugins, Iterable):
        raise OptionError(f"plugins must be a list of plugin modules or objects, not {plugins!r}")
    found = list(plugins)
    for plugin in found:
        if plugin is None or isinstance(plugin, (str, bytes)):
            raise OptionError(f"plugins has {plugin!r}: import the plugin and give the module")
    return found


def collected(
    manager: pluggy.PluginManager, hook: str, kinds: tuple[type[Any], ...]
) -> Iterator[tuple[str, Any]]:
    """What plugins return from a collecting hook, one by one, with the plugin's name.

    Args:
        kinds: what the hook's lists may hold.

    Raises:
        PluginError: a hook that fails, or returns something else.
    """
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        plugin = implementation.plugin_name
        try:
            items = list(implementation.function())
        except Exception as error:
            raise PluginError(f"{hook} of plugin {plugin!r} failed: {error!r}") from error
        for item in items:
            if not isinstance(item, kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise PluginError(
                    f"plugin {plugin!r} returned {item!r} from {hook}: it must return a list of "
                    f"{wanted}"
                )
            yield plugin, item


def _origin(distribution: str) -> str:
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


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
        fields = component.options.model_fields
        for name in given:
            if name not in fields:
                raise UnknownNameError(f"option of the {role} {component.name!r}:", name, fields)
        try:
            return component.options(**given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (role, *first["loc"]))
            field = fields.get(str(first["loc"][0])) if first["loc"] else None
            meaning = f": {field.description}" if field else ""
            raise OptionError(
                f"{where}={_shown(first['input'])}: {first['msg']} ({component.name}{meaning})"
            ) from error


def _shown(value: Any) -> str:
    """A value as an error message shows it: a whole network by its type."""
    text = repr(value)
    return text if len(text) <= 200 and "\n" not in text else f"<{type(value).__name__}>"
