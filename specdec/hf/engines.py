"""Engines of models that users hold: built once for a model and its options, and found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import ref

from torch import nn
from transformers import PreTrainedModel

from specdec.engine import Engine
from specdec.hf.model_state import ENGINES, model_state
from specdec.models.fingerprints import fingerprint_of_model
from specdec.models.ranks import is_sharded
from specdec.request.copying import with_own_containers

# Engines that are kept for one model, those used last. They share the model's weights.
MOST = 4
# Making those of a model, once.
_MAKING = Lock()


@dataclass(frozen=True)
class _Built:
    """An engine and what it was built of; ``weights`` are marked where it has copied them."""

    arguments: Mapping[str, Any]
    state: tuple[Any, ...]
    weights: str | None
    engine: Engine

    def stale(self, model: PreTrainedModel) -> bool:
        """Whether weights that it has copied have been written to."""
        return self.weights is not None and self.weights != fingerprint_of_model(model)


class _Engines:
    """What a model has among its attributes, and a copy of it has not. A cycle that goes with the
    model: an engine may lead to it, by a hook or a drafter."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.lock, self.built, self._model = Lock(), list[_Built](), ref(model)

    @classmethod
    def of(cls, model: PreTrainedModel) -> _Engines:
        """Those of this very model."""
        with _MAKING:
            found = vars(model).get(ENGINES)
            if not isinstance(found, cls) or found._model() is not model:
                found = vars(model)[ENGINES] = cls(model)
            return found

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ()  # so that a pickle of the model needs nothing of specdec


def engine_for(model: PreTrainedModel, arguments: Mapping[str, Any]) -> Engine:
    """The engine of a model with these arguments of :class:`~specdec.engine.Engine`: the one that
    is there, unless the model has changed since.

    Raises:
        SpecdecError: as for the class.
    """
    engines = _Engines.of(model)
    with engines.lock:
        state = model_state(model)
        known = [each for each in engines.built if each.state == state]
        found = next((each for each in known if each.arguments == arguments), None)
        others = [each for each in known if each is not found]
        if found is None or found.stale(model):
            engine = Engine(model, **arguments)
            weights = fingerprint_of_model(model) if _copies(engine, model) else None
            found = _Built(with_own_containers(arguments), state, weights, engine)
        engines.built = [found, *others][:MOST]
        return found.engine


def _copies(engine: Engine, model: PreTrainedModel) -> bool:
    """Whether an engine has weights of its own, which it would not see written to. Those of a
    sharded model are not read: each process has others."""
    if any(map(is_sharded, model.parameters())):
        return False
    shared = set(map(id, model.parameters()))
    own = engine.target.model.parameters()
    return engine.acceleration.changes or any(id(each) not in shared for each in own)


def forget(model: nn.Module) -> None:
    """Let the engines of a model go, with the drafters that they loaded and their copies of its
    weights, while the model stays. The next call builds its engine anew."""
    for module in model.modules():
        vars(module).pop(ENGINES, None)
