"""Lossless speculative decoding for Hugging Face models, as a framework of plugins."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdec.decoding.interfaces import Acceptor as Acceptor
    from specdec.decoding.interfaces import LevelDrafter as LevelDrafter
    from specdec.decoding.interfaces import LevelProposer as LevelProposer
    from specdec.decoding.interfaces import Needs as Needs
    from specdec.decoding.interfaces import TreeDrafter as TreeDrafter
    from specdec.decoding.interfaces import TreeFunction as TreeFunction
    from specdec.decoding.interfaces import TreeGrower as TreeGrower
    from specdec.decoding.interfaces import TreePolicy as TreePolicy
    from specdec.decoding.interfaces import TreeProposer as TreeProposer
    from specdec.decoding.interfaces import Verifier as Verifier
    from specdec.decoding.proposal import Proposal as Proposal
    from specdec.decoding.tree import DraftTree as DraftTree
    from specdec.engine import Engine as Engine
    from specdec.errors import SpecdecError as SpecdecError
    from specdec.plugin.components import Component as Component
    from specdec.plugin.components import ModelAlias as ModelAlias
    from specdec.plugin.components import Strategy as Strategy
    from specdec.plugin.components import Trainer as Trainer
    from specdec.plugin.components import hookimpl as hookimpl
    from specdec.results import GenerationResult as GenerationResult

__version__ = "0.1.0"

# Silent, unless the program that imports specdec says where log records go.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Importing specdec is light: torch and transformers come with the first name that needs them.
_WHERE = {
    "Engine": "engine",
    "GenerationResult": "results",
    "SpecdecError": "errors",
    "Component": "plugin.components",
    "ModelAlias": "plugin.components",
    "Strategy": "plugin.components",
    "Trainer": "plugin.components",
    "hookimpl": "plugin.components",
    "Acceptor": "decoding.interfaces",
    "LevelDrafter": "decoding.interfaces",
    "LevelProposer": "decoding.interfaces",
    "Needs": "decoding.interfaces",
    "TreeDrafter": "decoding.interfaces",
    "TreeProposer": "decoding.interfaces",
    "TreeFunction": "decoding.interfaces",
    "TreeGrower": "decoding.interfaces",
    "TreePolicy": "decoding.interfaces",
    "Verifier": "decoding.interfaces",
    "DraftTree": "decoding.tree",
    "Proposal": "decoding.proposal",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name == "hf":
        return import_module("specdec.hf")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"specdec.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
