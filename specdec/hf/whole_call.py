"""A whole ``generate`` call of transformers, as a function of the hub's form gets it."""

from __future__ import annotations

import copy
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from specdec.hf.custom_generate import ENGINE, decoder


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
        stop_strings: those of ``generation_config`` unless given; they need a ``tokenizer``.
        **arguments: those of :class:`~specdec.engine.Engine` (strategy, drafter, options, ...) and
            of ``generate``.
    """
    engine = {name: arguments.pop(name) for name in ENGINE if name in arguments}
    if stop_strings is None and generation_config is not None:
        generation_config = copy.deepcopy(generation_config)
        stop_strings, generation_config.stop_strings = generation_config.stop_strings, None
    own = decoder(**engine, streamer=streamer, stop_strings=stop_strings, seed=seed)
    return model.generate(
        custom_generate=own, generation_config=generation_config, streamer=streamer, **arguments
    )
