"""An engine as the arguments that it was made with: for spawned processes and actors."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class _Module:
    """A plugin module, by the name that it is imported under."""

    name: str


def picklable(arguments: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Arguments of an engine that mean the same in another process.

    Folders become absolute, plugin modules their names.

    Args:
        names: of models and drafters, which are no folders.

    Raises:
        PicklingError: a plugin module that another process could not import.
    """
    changed: dict[str, Any] = {"plugins": [_portable(each) for each in arguments["plugins"]]}
    for name in ("model", "drafter"):
        given = arguments[name]
        if not isinstance(given, (str, Path)) or str(given) in names:
            continue
        if (folder := Path(given).expanduser()).is_dir():
            changed[name] = str(folder.resolve())
    return {**arguments, **changed}


def rebuilt(kind: type[Any], arguments: dict[str, Any]) -> Any:
    """The engine that was pickled."""
    plugins = [
        importlib.import_module(each.name) if isinstance(each, _Module) else each
        for each in arguments["plugins"]
    ]
    return kind(**{**arguments, "plugins": plugins})


def _portable(plugin: object) -> object:
    if not isinstance(plugin, ModuleType):
        return plugin
    name = plugin.__spec__.name if plugin.__spec__ else plugin.__name__
    if name == "__main__" or sys.modules.get(name) is not plugin:
        raise pickle.PicklingError(
            f"this engine has the module {plugin.__name__!r} as a plugin, which another process "
            "cannot import by that name: put it in a file of its own on the import path"
        )
    return _Module(name)
