"""Arguments of transformers' ``generate`` that it does not hand to a function of the caller's."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from torch import Tensor
from transformers import GenerationMixin

_CODE = inspect.unwrap(GenerationMixin.generate).__code__
_DROPPED = ("streamer", "assistant_model", "synced_gpus")


def dropped_arguments(input_ids: Tensor) -> dict[str, Any]:
    """What the ``generate`` that is calling was given and has dropped, by name.

    transformers (5.24) hands neither the streamer nor the assistant model to ``custom_generate``,
    so they are read where they still are, in the frame of the call: a streamer that gets no end
    leaves its reader waiting for ever.

    Args:
        input_ids: those that it has handed on, to know the call by.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CODE and (known := frame.f_locals).get("input_ids") is input_ids:
            return {name: known[name] for name in _DROPPED if known.get(name) is not None}
        frame = frame.f_back  # type: ignore[assignment]
    return {}
