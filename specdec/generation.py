"""One generation: making its state, running the loop, its results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from specdec.decoding.clock import Clock
from specdec.decoding.draft_phase import DraftPhase
from specdec.decoding.first_rank import FirstRankAccepts
from specdec.decoding.generation_info import GenerationInfo
from specdec.decoding.interfaces import Proposer, Resumable
from specdec.decoding.loop import decode
from specdec.decoding.metrics import Metrics
from specdec.decoding.parts import Parts
from specdec.decoding.randomness import Randomness
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.errors import full_name
from specdec.logprobs import LogprobRecorder
from specdec.models.hf_target import HFTarget
from specdec.models.ranks import Ranks
from specdec.request.common_prefix import common_prefix
from specdec.request.criteria import Criterion, RowCriteria, is_repeatable
from specdec.request.detokenizer import Detokenizer, text_of
from specdec.request.logits_processors import Processors
from specdec.request.request import Request
from specdec.request.stopping import FinishReason, StopRules
from specdec.results import GenerationResult
from specdec.tracing.record import Trace
from specdec.tracing.recorder import Recorder

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
# Slots that a cache has for new tokens at first; it grows when they are used up.
ROOM = 512
# Tokens that a step may verify past the longest row.
AHEAD = 64


@dataclass(frozen=True)
class GenerationSetup:
    """What the generations of an engine share.

    Attributes:
        target: the target model.
        parts: of the strategy.
        strategy: its name.
        model_name: the target's.
        tokenizer: None where prompts and results are token ids.
        observers: called with every committed step and its generation, as
            ``observe(step=step, generation=info)``.
        make_randomness: makes the generator from ``seeds [B]`` int64.
        check_length: called with a number of tokens before a text reaches it.
        ranks: the processes that hold the target's shards; None where this one holds it whole.
    """

    target: HFTarget
    parts: Parts
    strategy: str
    model_name: str
    tokenizer: PreTrainedTokenizerBase | None
    observers: Sequence[Callable[..., Any]]
    make_randomness: Callable[[Tensor], Randomness]
    check_length: Callable[[int], None]
    ranks: Ranks | None = None

    def decided(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returns; of a sharded model on the first rank, which alone calls it."""
        return decide() if self.ranks is None else self.ranks.decided(decide)

    def agreed(
        self, make: Callable[[], Request], *, drawn: bool = False, also_equal: object = None
    ) -> Request:
        """The request that ``make`` makes; of a sharded model every rank makes the same.

        Args:
            make: all that may refuse the call belongs in it.
            drawn: whether its seeds were drawn, not given: then those of the first rank count.
            also_equal: what else the ranks must have been given alike.

        Raises:
            OptionError: the ranks were not asked for the same.
        """
        if (ranks := self.ranks) is None:
            return make()

        def said(request: Request) -> str:
            return f"{also_equal} {(replace(request, seeds=[]) if drawn else request).digest}"

        request = ranks.agreed(make, said)
        if not drawn:
            return request
        return replace(request, seeds=ranks.decided(lambda: request.seeds))


@dataclass(frozen=True)
class ResumePoint:
    """What the next turn of a session goes on from: consistent between steps only."""

    state: State
    proposer: Proposer | None


class Generation:
    """One generation: iterate to run it step by step, ask for results at any time.

    Args:
        setup: what the generations of the engine share.
        request: what is asked for.
        before: an earlier generation of as many rows that ended between steps. What the rows have
            in common with it is not read again.
        on_end: called with what a later generation may go on from, when this one has ended between
            steps. Without it finished rows leave the batch, where the drafter allows it.

    Attributes:
        request: what is asked for.
        state: the rows.
        clock, metrics: what it costs.
    """

    def __init__(
        self,
        setup: GenerationSetup,
        request: Request,
        *,
        before: ResumePoint | None = None,
        on_end: Callable[[ResumePoint], None] | None = None,
    ) -> None:
        rows, limits, sampling = request.rows, request.limits, request.sampling
        target, parts = setup.target, setup.parts
        lengths = [len(row) for row in rows]
        setup.check_length(max(lengths))

        def made() -> Processors:
            found = sampling.processors(lengths, target.device, request.place)
            found.check_support(target.vocab_size, target.device)
            return found

        processors = made() if setup.ranks is None else setup.ranks.agreed(made)
        randomness = setup.make_randomness(torch.tensor(request.seeds, device=target.device))
        cache, cached, proposer = None, None, None
        if before and (cached := _shared(before, parts, rows)) is not None:
            cache, proposer = before.state.cache, before.proposer
        elif parts.verifier.uses_cache:
            cache = target.new_cache(len(rows), min(max(limits), max(lengths) + ROOM) + AHEAD)
        detokenizers = [
            Detokenizer(setup.tokenizer, skip_special_tokens=False)
            for _ in (rows if sampling.stop else ())
        ]
        criteria = [
            RowCriteria(sampling.criteria, row, limit, target.device)
            for row, limit in (zip(rows, limits, strict=True) if sampling.criteria else ())
        ]
        self._setup, self.request, self._on_end = setup, request, on_end
        self._criteria = criteria
        self.state = State(
            rows,
            processors=processors,
            randomness=randomness,
            stopping=StopRules(sampling.eos, sampling.stop, limits, detokenizers, criteria),
            cache=cache,
            vocab_size=target.vocab_size,
            device=target.device,
            cached=cached,
            keeps_scores=request.keeps_scores,
            ranks=setup.ranks,
        )
        if cache is not None and cached is not None:
            cache.truncate(torch.tensor(cached, device=target.device), max(cached))
        self.clock = Clock(target.device)
        self.metrics = Metrics(len(rows), self.clock, lossless=parts.acceptor.lossless)
        self._draft_phase = DraftPhase(
            parts,
            self.clock,
            proposer,
            may_shrink=on_end is None and len(rows) > 1,
            ranks=setup.ranks,
        )
        self._recorder = Recorder(len(rows), self.clock, setup.tokenizer) if request.trace else None
        self._logprobs = (
            None if request.logprobs is None else LogprobRecorder(len(rows), request.logprobs)
        )
        self._prompt_lengths = lengths
        self._info = GenerationInfo(
            model=setup.model_name,
            strategy=setup.strategy,
            lossless=parts.acceptor.lossless,
            prompt_tokens=tuple(lengths),
            started=time.time_ns(),
            clock=self.clock,
        )
        self._tokens: list[list[int]] = [[] for _ in rows]
        self._reasons = list(self.state.finish_reasons)
        self._running = self._steps()

    @property
    def batched(self) -> bool:
        """Whether the caller gave several prompts."""
        return self.request.batched

    @property
    def called_criterion(self) -> Criterion | None:
        """A stopping criterion that has been called and that may keep a state, if there is one:
        then no other generation may begin anew with it."""
        if not any(each.called for each in self._criteria):
            return None
        return next(
            (each for each in self.request.sampling.criteria if not is_repeatable(each)), None
        )

    def __iter__(self) -> Iterator[Step]:
        return self._running

    def close(self) -> None:
        """Stop here: what has been committed stands."""
        self._running.close()

    def end(self, row: int, new_tokens: int, reason: FinishReason = "criteria") -> None:
        """End a row of the request between steps: it gets no further token.

        Args:
            new_tokens: how many of the row's tokens to keep. The rest are dropped from its result
                and statistics, but the forwards that produced them still count. Logits processors
                that support rollback are rolled back to that length. A trace keeps what was
                decoded.
        """
        if self._reasons[row] is None:
            self._info.ended[row] = reason, new_tokens
        if self._reasons[row] is None or new_tokens < len(self._tokens[row]):
            self._reasons[row] = reason
        del self._tokens[row][new_tokens:]
        self.metrics.end(row, new_tokens)
        self.state.end(row, self._prompt_lengths[row] + new_tokens, reason)

    def _steps(self) -> Generator[Step, None, None]:
        setup, state, parts = self._setup, self.state, self._setup.parts
        acceptor = parts.acceptor
        if setup.ranks is not None:
            acceptor = FirstRankAccepts(acceptor, setup.ranks)
        steps = decode(setup.target, self._draft_phase, parts.verifier, acceptor, state, self.clock)
        between_steps = False
        try:
            for step in self.metrics.timed(steps):
                self._collect(step)
                self.metrics.observe(step)
                if self._recorder:
                    self._recorder.observe(step)
                if self._logprobs:
                    self._logprobs.observe(step)
                self.metrics.row_processor_seconds = state.processors.row_seconds
                for observe in setup.observers:
                    observe(step=step, generation=self._info)
                between_steps = True
                yield step
                between_steps = False
                if not state.finished:
                    most = max(state.stopping.limits)
                    setup.check_length(min(state.longest + AHEAD, most))
            between_steps = True
            self._log_end()
        except Exception as error:
            self._info.failure.append(full_name(error))
            raise
        finally:
            if between_steps:
                try:
                    self._draft_phase.end(self._tokens)
                finally:
                    if self._on_end:
                        self._on_end(ResumePoint(state, self._draft_phase.proposer))

    def _log_end(self) -> None:
        if _LOG.isEnabledFor(logging.DEBUG):
            stats = self.metrics.stats()
            _LOG.debug(
                "%s with %s: %d prompts, %d new tokens, tau %.2f, %.1f tokens/s",
                *(self._info.model, self._info.strategy, len(self._tokens)),
                *(stats.new_tokens, stats.tau, stats.tokens_per_second),
            )

    def _collect(self, step: Step) -> None:
        for request_row, tokens, why in zip(
            step.request_rows, step.new_tokens, step.finish_reasons, strict=True
        ):
            self._tokens[request_row] += tokens
            self._reasons[request_row] = why or self._reasons[request_row]

    def new_tokens(self, row: int) -> list[int]:
        """The tokens that the answer to a row of the request has so far."""
        return list(self._tokens[row])

    def results(self) -> list[GenerationResult]:
        """One for each row of the request."""
        return [self.result(row) for row in range(len(self._tokens))]

    def result(self, row: int) -> GenerationResult:
        """What has been generated so far for a row of the request."""
        tokens, request = self.new_tokens(row), self.request
        text = None
        if (tokenizer := self._setup.tokenizer) is not None:
            skip = request.skip_special_tokens
            text = text_of(tokenizer, tokens, request.sampling.stop, skip_special_tokens=skip)
        return GenerationResult(
            trace=self._trace(row, text),
            text=text,
            token_ids=tokens,
            finish_reason=self._reasons[row],
            stats=self.metrics.stats(row),
            prompt_tokens=self._prompt_lengths[row],
            strategy=self._setup.strategy,
            seed=request.seeds[row],
            logprobs=self._logprobs.of(row)[: len(tokens)] if self._logprobs else None,
        )

    def _trace(self, row: int, text: str | None) -> Trace | None:
        if self._recorder is None:
            return None
        setup, request = self._setup, self.request
        prompt = request.rows[row]
        return Trace(
            model=setup.model_name,
            strategy=setup.strategy,
            lossless=self.metrics.lossless,
            greedy=request.sampling.greedy,
            prompt=setup.tokenizer.decode(prompt) if setup.tokenizer else None,
            prompt_tokens=self._prompt_lengths[row],
            text=text,
            finish_reason=self._reasons[row],
            steps=self._recorder.steps(row, text, skip_special_tokens=request.skip_special_tokens),
            seconds=self.metrics.stats(row).seconds,
        )


def _shared(before: ResumePoint, parts: Parts, rows: Sequence[Sequence[int]]) -> list[int] | None:
    """How many leading tokens of each row need not be read again.

    None: another number of rows, or no cache.
    """
    old, cache, proposer = before.state, before.state.cache, before.proposer
    if cache is None or old.rows != len(rows):
        return None
    most = cache.lengths
    if isinstance(proposer, Resumable):
        most = torch.minimum(most, proposer.cached_tokens())
    elif parts.drafter is not None and (needs := parts.drafter.needs) and needs.hidden:
        return None  # a drafter that starts anew wants the hidden states of all tokens
    starts = []
    for row, limit in enumerate(most.tolist()):
        known = old.tokens[row, : old.host_lengths[row]].tolist()
        alike = common_prefix(known, rows[row])
        # A drafter may need the token after a feature, and something to read.
        starts.append(max(0, min(limit, alike - 2)))
    return starts
