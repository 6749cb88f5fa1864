"""A whole ``generate`` call of transformers, as a function of the hub's form gets it."""

from __future__ import annotations

import copy
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from specdec.engine import ARGUMENTS
from specdec.hf.custom_generate import decoder


def generate(
    model: PreTrainedModel,
    *,
    generation_config: GenerationConfig | None = None,
    streamer: Any = None,
    stop_strings: Any = None,
    seed: Any = None,
    **arguments: Any,
) -> Any:
    """``model.generate`` with a :func:`~specdec.hf.custom_generate.decoder`.

    Args:
        stop_strings: those of ``generation_config`` or else of the model's own unless given; they
            need a ``tokenizer``.
        **arguments: those of :class:`~specdec.engine.Engine` (strategy, drafter, options, ...) and
            of ``generate``.
    """
    engine = {name: arguments.pop(name) for name in ARGUMENTS if name in arguments}
    for config in (generation_config, model.generation_config):
        stop_strings = (
            getattr(config, "stop_strings", None) if stop_strings is None else stop_strings
        )
    if generation_config is not None:
        generation_config = copy.deepcopy(generation_config)
        generation_config.stop_strings = None
    if model.generation_config.stop_strings is not None:
        arguments["stop_strings"] = None  # or transformers takes them from there
    own = decoder(**engine, streamer=streamer, stop_strings=stop_strings, seed=seed)
    return model.generate(
        custom_generate=own, generation_config=generation_config, streamer=streamer, **arguments
    )
