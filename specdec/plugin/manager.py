"""The plugins of an installation in a pluggy manager, and what their collecting hooks return."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pluggy

from specdec.errors import DISTRIBUTION, OptionError, PluginError
from specdec.plugin import builtin, hookspecs
from specdec.plugin.components import PROJECT
from specdec.plugin.deprecations import check_api_version, deprecations_of

_LOG = logging.getLogger(__name__)


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
