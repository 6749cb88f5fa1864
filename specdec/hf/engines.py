"""Engines of models that users hold: built once for a model and its options, and found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from specdec.engine import Engine
from specdec.hf.model_state import model_state

# Engines that are kept for one model, those used last. They share the model's weights.
MOST = 4


@dataclass(frozen=True)
class _Built:
    """An engine and what it was built of."""

    arguments: Mapping[str, Any]
    state: tuple[Any, ...]
    engine: Engine


# An engine works on modules of its own, so it keeps weights alive, but not the model that is a key.
_BUILT: WeakKeyDictionary[PreTrainedModel, list[_Built]] = WeakKeyDictionary()
_LOCK = Lock()


def engine_for(model: PreTrainedModel, arguments: Mapping[str, Any]) -> Engine:
    """The engine of a model with these arguments of :class:`~specdec.engine.Engine`: the one that
    is there, unless the model has changed since.

    Raises:
        SpecdecError: as for the class.
    """
    with _LOCK:
        state = model_state(model)
        known = [each for each in _BUILT.get(model, []) if each.state == state]
        found = next((each for each in known if each.arguments == arguments), None)
        if found is None:
            found = _Built(dict(arguments), state, Engine(model, **arguments))
        _BUILT[model] = [found, *(each for each in known if each is not found)][:MOST]
        return found.engine
