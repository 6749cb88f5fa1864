"""Batches: the prompts of one call, as many at a time as fit into memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch

from specdec.booleans import check_bools
from specdec.ended_once import EndedOnce
from specdec.errors import OptionError, out_of_memory, warn
from specdec.generation import Generation, GenerationSetup
from specdec.progress import reporter_of
from specdec.request.request import Request
from specdec.results import GenerationResult
from specdec.streamers import check_streamer, fed

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


def check_batches(texts: int, batch_size: Any, progress: Any, streamer: Any) -> None:
    """Refuse arguments by which a call cannot be decoded, for the number of texts that it has.

    Raises:
        OptionError: a batch size below 1, ``progress`` that is no bool, something that is no
            streamer, or several batches or texts for a streamer that takes one.
    """
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise OptionError(f"batch_size must be a whole number from 1 on, not {batch_size!r}")
    check_bools(progress=progress)
    check_streamer(streamer, texts)
    if streamer is not None and batch_size is not None and batch_size < texts:
        raise OptionError(
            f"batch_size={batch_size} decodes {texts} texts one batch after the other, and a "
            "streamer gets a token of every text at a time: leave out one of them"
        )


def in_batches(
    setup: GenerationSetup,
    request: Request,
    *,
    batch_size: int | None = None,
    progress: bool = False,
    streamer: Any = None,
    advance: Callable[[int], Any] | None = None,
) -> Generator[None, None, list[GenerationResult]]:
    """Decode many prompts, ``batch_size`` at a time; a batch that runs out of memory is halved.

    Prompts of like length go together, the longest first. Seeds and logits processors belong to
    prompts, so the tokens do not depend on the batches. Stops after every step; returns the
    results.

    Args:
        batch_size: the most rows of a batch; None for all of them.
        progress: whether to show on stderr how it goes.
        streamer: one of transformers, which gets the tokens as they are committed. It is told of
            the end by whoever gave it.
        advance: called after each step with the number of prompts that ended with it; one that
            ends again, in a batch that began anew, is not counted twice.

    Raises:
        OptionError: a batch that cannot begin again in halves because its logits processors have
            been called, or its stopping criteria; as for :func:`check_batches`.
    """
    rows, by_prompt = request.rows, request.sampling.by_prompt
    size = batch_size or len(rows)
    check_batches(len(rows), batch_size, progress, streamer)
    order = list(range(len(rows)))
    if size < len(rows):
        order.sort(key=lambda row: len(rows[row]), reverse=True)
    batches = deque(order[start : start + size] for start in range(0, len(rows), size))
    results: dict[int, GenerationResult] = {}
    ranks = setup.ranks
    reporter = reporter_of(progress and not (ranks and ranks.index))
    with reporter.stage("prompts", len(rows)) as stage:
        told = EndedOnce(advance or stage.advance)
        while batches:
            batch = batches.popleft()
            _LOG.debug("a batch of %d prompts, %d batches after it", len(batch), len(batches))
            generation = None
            try:
                generation = Generation(setup, request.part(batch))
                yield from _decode(generation, told, streamer)
                done = generation.results()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if len(batch) == 1 or streamer is not None or not out_of_memory(error):
                    raise
                if setup.ranks:  # the others are in the middle of this batch
                    raise OptionError(
                        f"a batch of {len(batch)} prompts does not fit into the memory of a rank, "
                        f"and ranks cannot begin anew: give batch_size={len(batch) // 2}"
                    ) from error
                if by_prompt and by_prompt.once:
                    raise OptionError(
                        f"a batch of {len(batch)} prompts does not fit into memory, and the "
                        "processors in the list logits_processor_by_prompt cannot begin again: "
                        f"give batch_size={len(batch) // 2}, or a function that makes them"
                    ) from error
                called = None if generation is None else generation.called_criterion
                if called is not None:
                    raise OptionError(
                        f"a batch of {len(batch)} prompts does not fit into memory, and the "
                        f"stopping criterion {type(called).__name__}, which may keep a state, has "
                        f"been called and cannot begin again: give batch_size={len(batch) // 2}"
                    ) from error
                done = None
            generation = None
            if done is None:  # outside of the handler, which would keep the tensors alive
                told.begin_anew()
                half = len(batch) // 2
                warn(
                    f"a batch of {len(batch)} prompts does not fit into memory: going on with "
                    f"{half} at a time. Give batch_size={half} to begin there"
                )
                batches.extendleft([batch[half:], batch[:half]])
                continue
            told.next_batch()
            results.update(zip(batch, done, strict=True))
    return [results[row] for row in range(len(rows))]


def _decode(generation: Generation, told: EndedOnce, streamer: Any) -> Generator[None, None, None]:
    try:
        for step in generation if streamer is None else fed(generation, streamer):
            told.advance(sum(reason is not None for reason in step.finish_reasons))
            yield
    finally:
        generation.close()


def finished(steps: Generator[Any, None, T]) -> T:
    """What a generator returns at its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
