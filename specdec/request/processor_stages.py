"""Processor stages: one logits processor on a ragged batch, with exact, unpadded prefixes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.generation import logits_process as hf

from specdec.errors import OptionError
from specdec.request.rollback import Settles, rolled_back

# Processors that read no token of the prefix: one batched call serves every row.
PREFIX_FREE = (
    hf.TemperatureLogitsWarper,
    hf.TopHLogitsWarper,
    hf.TopKLogitsWarper,
    hf.TopPLogitsWarper,
    hf.MinPLogitsWarper,
    hf.TypicalLogitsWarper,
    hf.EpsilonLogitsWarper,
    hf.EtaLogitsWarper,
    hf.LogitNormalization,
    hf.InfNanRemoveLogitsProcessor,
    hf.SuppressTokensLogitsProcessor,
)
# Those of them that look scores up by token id, so that scores must be over all of V.
BY_TOKEN = (hf.SuppressTokensLogitsProcessor,)
# Those that sort.
SORTING = (hf.TopPLogitsWarper, hf.TypicalLogitsWarper)
# Processors that read the prefix as a set: padding a row with a token of its own changes nothing.
SET_BASED = (hf.RepetitionPenaltyLogitsProcessor,)


@dataclass(frozen=True)
class Prefix:
    """The tokens before a position, for every row.

    Attributes:
        tokens: ``[B, S]`` int64; past a row's length its first token is repeated.
        lengths: ``[B]`` int64.
        active: ``[B]`` bool, rows whose distribution is asked for.
    """

    tokens: Tensor
    lengths: Tensor
    active: Tensor

    @cached_property
    def on_host(self) -> list[tuple[int, bool]]:
        """Length of each row and whether it is active, read from the device."""
        return list(zip(self.lengths.tolist(), self.active.tolist(), strict=True))


class Stage(ABC):
    """One logits processor, and how it is called on a batch."""

    reads_prefix = True

    @property
    def by_token(self) -> bool:
        """Whether it looks scores up by token id, so that their columns must be all of V."""
        return True

    @abstractmethod
    def __call__(self, prefix: Prefix | None, scores: Tensor) -> Tensor:
        """Processed scores ``[B, V]``."""

    def keep_rows(self, rows: Sequence[int]) -> Stage:
        """The same for some rows of the batch."""
        return self

    def settle(self, row: int, length: int) -> None:  # noqa: B027
        """A row's text has ended with ``length`` tokens."""

    @staticmethod
    def of(processor: hf.LogitsProcessor) -> Stage:
        """The cheapest exact way to call ``processor``."""
        if type(processor) in PREFIX_FREE:
            return PrefixFree(processor)
        if type(processor) in SET_BASED and processor.prompt_ignore_length is None:
            return SetBased(processor)
        return PerRow((rolled_back(processor),))


@dataclass(frozen=True)
class PrefixFree(Stage):
    """One call for the whole batch, without tokens."""

    processor: hf.LogitsProcessor
    reads_prefix = False

    @property
    def by_token(self) -> bool:
        return type(self.processor) in BY_TOKEN

    def __call__(self, prefix: Prefix | None, scores: Tensor) -> Tensor:
        processed: Tensor = self.processor(None, scores)
        return processed


@dataclass(frozen=True)
class SetBased(Stage):
    """One call for the whole batch, rows padded with a token of their own."""

    processor: hf.LogitsProcessor

    def __call__(self, prefix: Prefix | None, scores: Tensor) -> Tensor:
        assert prefix is not None
        processed: Tensor = self.processor(prefix.tokens, scores)
        return processed


@dataclass(frozen=True)
class PerRow(Stage):
    """One call per active row with its exact prefix.

    Attributes:
        processors: one that serves every row, or one per row; None for a row without.
    """

    processors: tuple[hf.LogitsProcessor | None, ...]

    def __call__(self, prefix: Prefix | None, scores: Tensor) -> Tensor:
        assert prefix is not None
        rows = []
        for row, (length, active) in enumerate(prefix.on_host):
            own = scores[row : row + 1]
            processor = self.processors[row % len(self.processors)]
            if active and processor is not None:
                own = checked(processor, prefix.tokens[row : row + 1, :length], own)
            rows.append(own)
        return torch.cat(rows)

    def keep_rows(self, rows: Sequence[int]) -> Stage:
        if len(self.processors) == 1:
            return self
        return PerRow(tuple(self.processors[row] for row in rows))

    def settle(self, row: int, length: int) -> None:
        processor = self.processors[row % len(self.processors)]
        if isinstance(processor, Settles):
            processor.settle(length)


def named(processor: Any) -> str:
    """What a processor is called in messages: a function's name, or that of its class."""
    return str(getattr(processor, "__name__", type(processor).__name__))


def checked(processor: hf.LogitsProcessor, tokens: Tensor, scores: Tensor) -> Tensor:
    """What a foreign processor returns, if tokens can be drawn from it."""
    processed = processor(tokens, scores)
    name = named(processor)
    if not isinstance(processed, Tensor) or processed.shape != scores.shape:
        raise OptionError(f"the logits processor {name} must return scores {list(scores.shape)}")
    if processed.isnan().any() or (processed == float("-inf")).all():
        raise OptionError(f"the logits processor {name} leaves no token: NaN, or all -inf")
    return processed


def names(stages: Sequence[Stage]) -> str:
    """What the processors of stages are called."""
    found: list[Any] = []
    for stage in stages:
        if isinstance(stage, PerRow):
            found += [processor for processor in stage.processors if processor is not None]
        elif isinstance(stage, (PrefixFree, SetBased)):
            found.append(stage.processor)
    return ", ".join(dict.fromkeys(map(named, found)))


def check_left(scores: Tensor, stages: Sequence[Stage]) -> None:
    """Refuse scores ``[B, V]`` with a row that has no token left."""
    if (scores == float("-inf")).all(dim=-1).any():
        raise OptionError(
            f"{names(stages)}: together these leave no token, all scores are -inf. Suppress fewer"
        )
