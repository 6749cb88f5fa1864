"""Logits processors of a request: from the target's logits to the distribution of a token."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.generation import logits_process as hf

from specdec.distribution import Distribution, at_least_float32
from specdec.errors import OptionError
from specdec.request.processor_stages import (
    SORTING,
    PerRow,
    Prefix,
    PrefixFree,
    SetBased,
    Stage,
    check_left,
    names,
)


@dataclass
class Processors:
    """Everything between the target's logits and the distribution that tokens are drawn from.

    Attributes:
        processors: what applies at any temperature, in transformers' order.
        warpers: temperature, top-k, top-p and the like; empty when greedy.
        greedy: whether the distribution is the point mass at the best token.
        row_seconds: time spent in processors that had to run row by row.
    """

    processors: Sequence[Stage]
    warpers: Sequence[Stage]
    greedy: bool
    row_seconds: float = field(default=0.0)

    def distribution(self, scores: Tensor) -> Distribution:
        """The distribution of the next token, of its :meth:`scores` ``[B, V]``."""
        if self.greedy:
            return Distribution.at(scores.argmax(-1), scores.shape[-1])
        return Distribution.of(scores)

    def scores(self, logits: Tensor, prefix: Callable[[], Prefix] | None = None) -> Tensor:
        """The scores of the next token after processors and warpers: ``[B, V]``, float32 at least.

        Args:
            logits: ``[B, V]``.
            prefix: gives the rows' prefixes; called only if a processor reads them, and may be left
                out unless :attr:`reads_prefix`.
        """
        scores = at_least_float32(logits)
        if self.processors or self.warpers:
            scores = self._run([*self.processors, *self.warpers], scores, prefix)
        return scores

    def check_support(self, vocab_size: int, device: torch.device) -> None:
        """Refuse processors that leave no token whatever the logits and the prefix are.

        Raises:
            OptionError: tokens that are all suppressed.
        """
        free = [s for s in self.processors if isinstance(s, PrefixFree)]
        if not any(stage.by_token for stage in free):
            return
        scores = torch.zeros(1, vocab_size, device=device)
        for stage in free:
            scores = stage(None, scores)
        check_left(scores, free)

    @property
    def reads_prefix(self) -> bool:
        """Whether any of them reads the tokens before a position."""
        return any(stage.reads_prefix for stage in (*self.processors, *self.warpers))

    @property
    def by_row(self) -> bool:
        """Whether any of them is called row by row, for which the host reads the prefix."""
        return any(isinstance(stage, PerRow) for stage in (*self.processors, *self.warpers))

    @property
    def sorts(self) -> bool:
        """Whether any of them sorts the vocabulary."""
        stages = (*self.processors, *self.warpers)
        return any(isinstance(s, PrefixFree) and type(s.processor) in SORTING for s in stages)

    @property
    def draft_by_token(self) -> bool:
        """Whether :meth:`draft_scores` takes logits over all of V alone."""
        return any(stage.by_token for stage in self._draft_stages)

    @property
    def _draft_stages(self) -> list[PrefixFree | SetBased]:
        return [
            s for s in (*self.processors, *self.warpers) if isinstance(s, (PrefixFree, SetBased))
        ]

    def draft_scores(self, logits: Tensor, prefixes: Callable[[], Tensor]) -> Tensor:
        """Draft logits under the request's warpers, and under the processors that a prefix decides
        as a set: ``[B, n, C]`` as ``logits``.

        Over a part of the vocabulary a warper ranks and sums what is there.

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
        """The draft distribution under the same warpers, ``[B, n, V]``, of ``logits [B, n, V]``.

        Penalties and processors that read the prefix are left to verification: they change what
        is accepted, not what may be drafted.
        """
        if self.greedy:
            return Distribution.at(logits.argmax(-1), logits.shape[-1])
        flat = at_least_float32(logits.flatten(0, 1))
        free = [stage for stage in self.warpers if not stage.reads_prefix]
        return Distribution.of(self._run(free, flat, None).view_as(logits))

    @property
    def temperature(self) -> float:
        """What logits are divided by; 0 if greedy."""
        if self.greedy:
            return 0.0
        warpers = [stage.processor for stage in self.warpers if isinstance(stage, PrefixFree)]
        found = [
            each.temperature for each in warpers if isinstance(each, hf.TemperatureLogitsWarper)
        ]
        return float(math.prod(found))

    @property
    def setting(self) -> str:
        """A description of the warpers: equal for equal warpers."""
        if self.greedy:
            return "greedy"
        return "; ".join(
            f"{type(stage.processor).__name__} {sorted(vars(stage.processor).items())}"
            if isinstance(stage, PrefixFree)
            else "others"
            for stage in self.warpers
        )

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only ``rows`` of the batch."""
        self.processors = [stage.keep_rows(rows) for stage in self.processors]
        self.warpers = [stage.keep_rows(rows) for stage in self.warpers]

    def settle(self, row: int, length: int) -> None:
        """A row's text has ended with ``length`` tokens: what a step asked beyond it is undone,
        where a processor can."""
        for stage in self.processors:
            stage.settle(row, length)

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
                        f"the logits processor {names([stage])} gives a score of +inf, from "
                        "which nothing can be sampled: to force a token, give -inf to all others"
                    )
        if known is not None and any(isinstance(stage, PerRow) for stage in stages):
            check_left(scores[known.active], stages)
        return scores
