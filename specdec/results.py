"""The result of a generation."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.decoding.metrics import Stats
from specdec.logprobs import TokenLogprobs
from specdec.request.stopping import FinishReason
from specdec.tracing.record import Trace


@dataclass(frozen=True)
class GenerationResult:
    """One row's output.

    Attributes:
        text: of the new tokens, cut before a stop string, without special tokens unless they were
            asked for; None without a tokenizer.
        token_ids: the new tokens, eos and stop strings included.
        finish_reason: ``"eos"``, ``"stop"``, ``"length"``, ``"criteria"`` (one of the caller's),
            ``"time"``; None if it was left unfinished.
        stats: tau and the rest, of this row.
        prompt_tokens: tokens of the prompt.
        strategy: the strategy's name.
        seed: that gives this text again, as ``seed=[result.seed]``.
        trace: every step of it, if ``trace=True`` was given.
        logprobs: how likely each new token was, if ``logprobs`` was given.
    """

    text: str | None
    token_ids: list[int]
    finish_reason: FinishReason | None
    stats: Stats
    prompt_tokens: int
    strategy: str
    seed: int
    trace: Trace | None = None
    logprobs: list[TokenLogprobs] | None = None

    def __str__(self) -> str:
        return self.text if self.text is not None else str(self.token_ids)
