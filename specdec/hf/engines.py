"""Engines of models that users hold: built once for a model and its options, and found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from specdec.engine import Engine
from specdec.hf.model_state import ENGINES, model_state
from specdec.models.fingerprints import fingerprint_of_model
from specdec.models.ranks import is_sharded

# Engines that are kept for one model, those used last. They share the model's weights.
MOST = 4
# Arguments by which an engine has weights of its own, which it would not see written to.
_COPYING = ("pack", "dtype", "device")


@dataclass(frozen=True)
class _Built:
    """An engine and what it was built of."""

    arguments: Mapping[str, Any]
    state: tuple[Any, ...]
    weights: str | None
    engine: Engine


class _Engines:
    """What a model has among its attributes, and a copy of it has not. A cycle that goes with the
    model: an engine may lead to it, by a hook or a drafter."""

    def __init__(self) -> None:
        self.lock, self.built = Lock(), list[_Built]()

    def __deepcopy__(self, memo: Any) -> _Engines:
        return _Engines()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Engines, ()


def engine_for(model: PreTrainedModel, arguments: Mapping[str, Any]) -> Engine:
    """The engine of a model with these arguments of :class:`~specdec.engine.Engine`: the one that
    is there, unless the model has changed since.

    Raises:
        SpecdecError: as for the class.
    """
    engines: _Engines = vars(model).setdefault(ENGINES, _Engines())
    with engines.lock:
        state = model_state(model)
        weights = fingerprint_of_model(model) if _copies(model, arguments) else None
        known = [each for each in engines.built if each.state == state]
        found = next((each for each in known if each.arguments == arguments), None)
        others = [each for each in known if each is not found]
        if found is None or found.weights != weights:
            found = _Built(dict(arguments), state, weights, Engine(model, **arguments))
        engines.built = [found, *others][:MOST]
        return found.engine


def _copies(model: PreTrainedModel, arguments: Mapping[str, Any]) -> bool:
    """Whether its weights are to be read; of a sharded model each process has others."""
    asked = any(arguments.get(name) for name in _COPYING)
    return asked and not any(map(is_sharded, model.parameters()))


def forget(model: nn.Module) -> None:
    """Let the engines of a model go, with the drafters that they loaded and their copies of its
    weights, while the model stays. The next call builds its engine anew."""
    for module in model.modules():
        vars(module).pop(ENGINES, None)
