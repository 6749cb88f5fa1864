"""Deprecated hooks and arguments, and the version of the interface that a plugin is written for."""

from __future__ import annotations

from typing import Any

import pluggy

from specdec.errors import PluginError
from specdec.plugin.components import API_VERSION

WRITTEN_FOR = "specdec_api_version"


def deprecation(what: str, *, since: str, until: str, instead: str) -> DeprecationWarning:
    """What a hook specification warns of, for ``warn_on_impl`` or a value of ``warn_on_impl_args``.

    Args:
        what: the hook, or ``the argument 'name' of specdec_hook``.
        since: the version that deprecates it.
        until: the version that it is gone in, by the policy of ``docs/hooks.md``.
        instead: what to do, as an imperative.
    """
    return DeprecationWarning(f"{what} is deprecated since {since} and gone in {until}: {instead}")


def deprecations_of(manager: pluggy.PluginManager, plugin: object) -> tuple[str, ...]:
    """What a registered plugin uses that is deprecated, a sentence each."""
    found = []
    for caller in manager.get_hookcallers(plugin) or ():
        if (spec := caller.spec) is None:
            continue
        if spec.warn_on_impl is not None:
            found.append(str(spec.warn_on_impl))
        own = [each for each in caller.get_hookimpls() if each.plugin is plugin]
        taken = {name for each in own for name in each.argnames}
        warned = spec.warn_on_impl_args or {}
        found += [str(warning) for name, warning in warned.items() if name in taken]
    return tuple(found)


def check_api_version(plugin: Any) -> None:
    """Refuse a plugin that says it is written for another version of the interface.

    Raises:
        PluginError: with both versions; a version that is no whole number.
    """
    written_for = getattr(plugin, WRITTEN_FOR, API_VERSION)
    if isinstance(written_for, bool) or not isinstance(written_for, int):
        raise PluginError(
            f"{WRITTEN_FOR} = {written_for!r}: give a whole number, such as {API_VERSION}"
        )
    if written_for != API_VERSION:
        newer = "install a newer version of the plugin, or an older specdec"
        older = "install an older version of the plugin, or a newer specdec"
        raise PluginError(
            f"it is written for version {written_for} of specdec's plugin interface, and this is "
            f"version {API_VERSION}: {newer if written_for < API_VERSION else older}"
        )
