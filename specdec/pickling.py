"""Pickling of engines, as the arguments that they were made with."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import PreTrainedModel

from specdec.models.loaded_model import without_capturing
from specdec.models.placement import is_placed
from specdec.models.ranks import Ranks
from specdec.plugin import Role
from specdec.plugin.components import IsPath
from specdec.plugin.registry import Registry


@dataclass(frozen=True)
class _Module:
    """A plugin module, by the name that it is imported under."""

    name: str


def with_absolute_paths(
    arguments: Mapping[str, Any], registry: Registry, names: Mapping[Role, str | None]
) -> dict[str, Any]:
    """Arguments of an engine whose paths mean the same in another working directory.

    Args:
        arguments: some of those of the class.
        names: of the parts whose options they have.
    """
    changed = dict(arguments)
    for name, known in (("model", registry.models), ("drafter", registry.components["drafter"])):
        if name in arguments and str(arguments[name]) not in known:
            changed[name] = _absolute(arguments[name])
    if arguments.get("options"):
        changed["options"] = {
            role: _settled_options(registry, role, names[role], options)
            for role, options in arguments["options"].items()
        }
    return changed


def picklable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an engine that mean the same in another process: plugin modules as their names,
    loaded models without hooks that are closures.

    Raises:
        PicklingError: a plugin module that another process could not import, or a model whose
            weights are not all here.
    """
    for name in ("model", "drafter"):
        if isinstance(model := arguments[name], PreTrainedModel) and (
            is_placed(model) or Ranks.of(model)
        ):
            raise pickle.PicklingError(
                f"this engine's {name} is sharded over several processes, or placed by a "
                "device_map: make an engine in the other process, with a model that is loaded there"
            )
    models = {
        name: without_capturing(value)
        for name in ("model", "drafter")
        if isinstance(value := arguments[name], PreTrainedModel)
    }
    plugins = [_portable(each) for each in arguments["plugins"]]
    return {**arguments, **models, "plugins": plugins}


def rebuilt(kind: type[Any], arguments: dict[str, Any], changed: Mapping[str, Any]) -> Any:
    """The engine that was pickled.

    Args:
        changed: what the engine had then that its arguments do not tell: its ``generation_config``,
            and ``tokenizer`` or ``chat_template`` where it was changed.
    """
    plugins = [
        importlib.import_module(each.name) if isinstance(each, _Module) else each
        for each in arguments["plugins"]
    ]
    engine = kind(**{**arguments, "plugins": plugins})
    engine.target.model.generation_config = changed["generation_config"]
    if "tokenizer" in changed:
        engine.tokenizer = changed["tokenizer"]
    if "chat_template" in changed:
        engine.tokenizer.chat_template = changed["chat_template"]
    return engine


def _absolute(given: Any) -> Any:
    if isinstance(given, (str, Path)) and (path := Path(given).expanduser()).exists():
        return str(path.resolve())
    return given


def _settled_options(
    registry: Registry, role: Role, name: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    fields = registry.component(role, name).options.model_fields if name else {}
    changed = dict(options)
    for option, value in options.items():
        marks = fields[option].metadata if option in fields else []
        if option == "checkpoint":
            changed[option] = _absolute(value)  # or a hub id
        elif isinstance(value, str) and any(isinstance(mark, IsPath) for mark in marks):
            changed[option] = str(Path(value).expanduser().resolve())
    return changed


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
