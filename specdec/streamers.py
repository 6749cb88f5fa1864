"""transformers' streamers, fed from the steps of a generation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from specdec.columns import Columns, padded_left
from specdec.decoding.step import Step
from specdec.errors import OptionError
from specdec.generation import Generation


def check_streamer(streamer: Any) -> None:
    """Refuse what is no streamer.

    Raises:
        OptionError: something without ``put`` and ``end``.
    """
    if streamer is None or all(callable(getattr(streamer, n, None)) for n in ("put", "end")):
        return
    raise OptionError(
        f"streamer must be one of transformers, with put and end, not {type(streamer).__name__}"
    )


@contextmanager
def told_of_the_end(streamer: Any) -> Iterator[None]:
    """Tell a streamer, if there is one, of the end of what is done within, also after an error or a
    refusal, so that nobody waits for it for ever."""
    try:
        yield
    finally:
        if streamer is not None:
            streamer.end()


def fed(generation: Generation, streamer: Any) -> Iterator[Step]:
    """The steps of a generation, whose tokens a streamer gets as transformers' ``generate`` gives
    them: the prompts ``[B, P]`` first, padded on the left, then the t-th new token of every row,
    ``[B]``, the padding token for rows that have ended. See :func:`told_of_the_end`."""
    request = generation.request
    pad = request.sampling.pad
    columns = Columns(len(request.rows), pad)
    streamer.put(torch.tensor(padded_left(request.rows, pad)))
    for step in generation:
        for column in columns.take(step):
            streamer.put(torch.tensor(column))
        yield step
