"""transformers' streamers, fed from the steps of a generation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TextStreamer

from specdec.columns import Columns, padded_left
from specdec.decoding.step import Step
from specdec.errors import OptionError
from specdec.generation import Generation


def check_streamer(streamer: Any, texts: int = 1) -> None:
    """Refuse what is no streamer, or none of this number of texts.

    Raises:
        OptionError: something without ``put`` and ``end``, or one of transformers' that takes one
            text alone.
    """
    if streamer is None:
        return
    kind = type(streamer)
    if not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
        raise OptionError(
            f"streamer must be one of transformers, with put and end, not {kind.__name__}"
        )
    if texts > 1 and getattr(kind, "put", None) is TextStreamer.put:
        raise OptionError(
            f"a {kind.__name__} takes one text, and {texts} are asked for: give one prompt, leave "
            "out streamer, or use Engine.stream, which yields pairs of an index and a piece"
        )


@contextmanager
def ending_streamer(streamer: Any) -> Iterator[None]:
    """Call ``streamer.end()``, if there is a streamer, when what is done within is over, also after
    an error or a refusal, so that nobody waits for it for ever."""
    try:
        yield
    finally:
        if callable(end := getattr(streamer, "end", None)):
            end()


def fed(generation: Generation, streamer: Any) -> Iterator[Step]:
    """The steps of a generation, whose tokens a streamer gets as transformers' ``generate`` gives
    them: the prompts ``[B, P]`` first, padded on the left, then the t-th new token of every row,
    ``[B]``, the padding token for rows that have ended. See :func:`ending_streamer`."""
    request = generation.request
    pad = request.sampling.pad
    columns = Columns(len(request.rows), pad)
    streamer.put(torch.tensor(padded_left(request.rows, pad)))
    for step in generation:
        for column in columns.take(step):
            streamer.put(torch.tensor(column))
        yield step
