"""Lossless speculative decoding for Hugging Face models, as a framework of plugins."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdec.engine import Engine as Engine
    from specdec.errors import SpecdecError as SpecdecError
    from specdec.plugin.components import Component as Component
    from specdec.plugin.components import ModelAlias as ModelAlias
    from specdec.plugin.components import Strategy as Strategy
    from specdec.plugin.components import hookimpl as hookimpl
    from specdec.results import GenerationResult as GenerationResult

__version__ = "0.1.0"

# Importing specdec is light: torch and transformers come with the first name that needs them.
_WHERE = {
    "Engine": "engine",
    "SpecdecError": "errors",
    "Component": "plugin.components",
    "ModelAlias": "plugin.components",
    "Strategy": "plugin.components",
    "hookimpl": "plugin.components",
    "GenerationResult": "results",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"specdec.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
