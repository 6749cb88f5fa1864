"""Logits processors on ragged batches: each is called with the row's exact, unpadded prefix."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.generation import logits_process as hf

from specdec.distribution import Distribution, at_least_float32
from specdec.errors import OptionError

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


class Stage:
    """One logits processor, and how it is called on a batch."""

    reads_prefix = True

    @property
    def by_token(self) -> bool:
        """Whether it looks scores up by token id, so that their columns must be all of V."""
        return True

    def __call__(self, prefix: Prefix | None, scores: Tensor) -> Tensor:
        """Processed scores ``[B, V]``."""
        raise NotImplementedError

    def keep_rows(self, rows: Sequence[int]) -> Stage:
        """The same for some rows of the batch."""
        return self

    @staticmethod
    def of(processor: hf.LogitsProcessor) -> Stage:
        """The cheapest exact way to call ``processor``."""
        if type(processor) in PREFIX_FREE:
            return PrefixFree(processor)
        if type(processor) in SET_BASED and processor.prompt_ignore_length is None:
            return SetBased(processor)
        return PerRow((processor,))


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


def _names(stages: Sequence[Stage]) -> str:
    """What the processors of stages are called."""
    found: list[Any] = []
    for stage in stages:
        if isinstance(stage, PerRow):
            found += [processor for processor in stage.processors if processor is not None]
        elif isinstance(stage, (PrefixFree, SetBased)):
            found.append(stage.processor)
    return ", ".join(dict.fromkeys(map(named, found)))


def _check_left(scores: Tensor, stages: Sequence[Stage]) -> None:
    """Refuse scores ``[B, V]`` with a row that has no token left."""
    if (scores == float("-inf")).all(dim=-1).any():
        raise OptionError(
            f"{_names(stages)}: together these leave no token, all scores are -inf. Suppress fewer"
        )


@dataclass
class Processors:
    """Everything between the target's logits and the distribution that tokens are drawn from.

    Attributes:
        penalties: what applies at any temperature, in transformers' order.
        warps: temperature, top-k, top-p and the like; empty when greedy.
        greedy: whether the distribution is the point mass at the best token.
        row_seconds: time spent in processors that had to run row by row.
    """

    penalties: Sequence[Stage]
    warps: Sequence[Stage]
    greedy: bool
    row_seconds: float = field(default=0.0)

    def distribution(self, logits: Tensor, prefix: Callable[[], Prefix]) -> Distribution:
        """The distribution of the next token.

        Args:
            logits: ``[B, V]``; float32 at least is used from here on.
            prefix: gives the rows' prefixes; called only if a processor reads them.
        """
        scores = self.scores(logits, prefix)
        return (
            Distribution.at(scores.argmax(-1), scores.shape[-1])
            if self.greedy
            else Distribution.of(scores)
        )

    def scores(self, logits: Tensor, prefix: Callable[[], Prefix] | None = None) -> Tensor:
        """What :meth:`distribution` is made of: ``[B, V]``, float32 at least.

        Args:
            prefix: may be left out unless :attr:`reads_prefix`.
        """
        scores = at_least_float32(logits)
        if self.penalties or self.warps:
            scores = self._run([*self.penalties, *self.warps], scores, prefix)
        return scores

    def check_support(self, vocab_size: int, device: torch.device) -> None:
        """Refuse processors that leave no token whatever the logits and the prefix are.

        Raises:
            OptionError: tokens that are all suppressed.
        """
        free = [s for s in self.penalties if isinstance(s, PrefixFree)]
        if not any(stage.by_token for stage in free):
            return
        scores = torch.zeros(1, vocab_size, device=device)
        for stage in free:
            scores = stage(None, scores)
        _check_left(scores, free)

    @property
    def reads_prefix(self) -> bool:
        """Whether any of them reads the tokens before a position."""
        return any(stage.reads_prefix for stage in (*self.penalties, *self.warps))

    @property
    def sorts(self) -> bool:
        """Whether any of them sorts the vocabulary."""
        stages = (*self.penalties, *self.warps)
        return any(isinstance(s, PrefixFree) and type(s.processor) in SORTING for s in stages)

    @property
    def draft_by_token(self) -> bool:
        """Whether :meth:`draft_scores` takes logits over all of V alone."""
        return any(stage.by_token for stage in self._draft_stages)

    @property
    def _draft_stages(self) -> list[PrefixFree | SetBased]:
        return [s for s in (*self.penalties, *self.warps) if isinstance(s, (PrefixFree, SetBased))]

    def draft_scores(self, logits: Tensor, prefixes: Callable[[], Tensor]) -> Tensor:
        """Draft logits under the request's warps, and under the penalties that a prefix decides as
        a set: ``[B, n, C]`` as ``logits``.

        Over a part of the vocabulary a warp ranks and sums what is there.

        Processors that are called row by row with exact prefixes are left to verification: they
        may count their calls, and what is drafted only changes what is accepted.

        Args:
            prefixes: gives the tokens before every node, ``[B, n, S]`` int64, in any order and
                with repetitions; called only if a processor reads them.
        """
        stages = self._draft_stages
        if not stages:
            return logits
        flat = at_least_float32(logits.flatten(0, 1))
        # Processors may refuse a row without a token: where a drafter abstains they see zeros.
        silent = ~(flat > float("-inf")).any(dim=-1, keepdim=True)
        flat = flat.masked_fill(silent, 0.0)
        tokens = None
        if any(stage.reads_prefix for stage in stages):
            tokens = prefixes().flatten(0, 1)
        for stage in stages:
            flat = stage.processor(tokens if stage.reads_prefix else None, flat)
        return flat.masked_fill(silent, float("-inf")).view(*logits.shape)

    def draft_distribution(self, logits: Tensor) -> Distribution:
        """The draft distribution under the same warps: ``logits [B, n, V]``, distribution ``[B, n,
        V]``.

        Penalties and processors that read the prefix are left to verification: they change what
        is accepted, not what may be drafted.
        """
        if self.greedy:
            return Distribution.at(logits.argmax(-1), logits.shape[-1])
        flat = at_least_float32(logits.flatten(0, 1))
        free = [stage for stage in self.warps if not stage.reads_prefix]
        return Distribution.of(self._run(free, flat, None).view_as(logits))

    @property
    def temperature(self) -> float:
        """What logits are divided by; 0 if greedy."""
        if self.greedy:
            return 0.0
        warps = [stage.processor for stage in self.warps if isinstance(stage, PrefixFree)]
        found = [warp.temperature for warp in warps if isinstance(warp, hf.TemperatureLogitsWarper)]
        return float(math.prod(found))

    @property
    def setting(self) -> str:
        """What kind of distribution tokens are drawn from, in words: equal for equal warps."""
        if self.greedy:
            return "greedy"
        return "; ".join(
            f"{type(stage.processor).__name__} {sorted(vars(stage.processor).items())}"
            if isinstance(stage, PrefixFree)
            else "others"
            for stage in self.warps
        )

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only ``rows`` of the batch."""
        self.penalties = [stage.keep_rows(rows) for stage in self.penalties]
        self.warps = [stage.keep_rows(rows) for stage in self.warps]

    def _run(
        self, stages: Sequence[Stage], scores: Tensor, prefix: Callable[[], Prefix] | None
    ) -> Tensor:
        scores = scores.clone()
        known = prefix() if prefix and any(stage.reads_prefix for stage in stages) else None
        for stage in stages:
            started = time.perf_counter()
            scores = stage(known, scores)
            if isinstance(stage, PerRow):
                self.row_seconds += time.perf_counter() - started
                assert known is not None
                if not self.greedy and (scores[known.active] == float("inf")).any():
                    raise OptionError(
                        f"the logits processor {_names([stage])} gives a score of +inf, from "
                        "which nothing can be sampled: to force a token, give -inf to all others"
                    )
        if known is not None and any(isinstance(stage, PerRow) for stage in stages):
            _check_left(scores[known.active], stages)
        return scores
