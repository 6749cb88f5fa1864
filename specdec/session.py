"""Running generations, one after the other, on one cache."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from specdec.decoding.interfaces import Drafter
from specdec.decoding.loop import decode
from specdec.decoding.metrics import Clock, Metrics
from specdec.decoding.randomness import Randomness, row_seeds
from specdec.decoding.state import State, Step
from specdec.errors import OptionError, PromptError
from specdec.request.caller_processors import Place
from specdec.request.chat_template import Template
from specdec.request.detokenizer import Detokenizer, text_of
from specdec.request.generation_config import Sampling, resolve
from specdec.request.prompts import encode
from specdec.request.stopping import StopRules
from specdec.results import GenerationResult

if TYPE_CHECKING:
    from specdec.engine import Engine

DEFAULT_NEW_TOKENS = 256
# Slots that a cache has for new tokens at first; it grows when they are used up.
ROOM = 512
# Tokens that a step may verify past the longest row.
AHEAD = 64


@dataclass
class _Kept:
    """What the next generation may build on: consistent between steps only."""

    state: State
    drafter: Drafter | None


class Session:
    """Generations that share a prefix without reading it again, as the turns of a chat do.

    Made by :meth:`Engine.session() <specdec.engine.Engine.session>`. A prompt that begins like the
    last prompt and answer is read from where it parts (or a few tokens before).

    Args:
        keeps: whether a later generation is to build on this one. If not, finished rows leave the
            batch, where the drafter allows it.
    """

    def __init__(self, engine: Engine, *, keeps: bool = True) -> None:
        self._engine, self._keeps = engine, keeps
        self._kept: _Kept | None = None

    def generate(self, prompt: Any, **settings: Any) -> GenerationResult | list[GenerationResult]:
        """Like :meth:`Engine.generate <specdec.engine.Engine.generate>`."""
        generation = self.start(prompt, **settings)
        for _ in generation:
            pass
        results = generation.results()
        return results if generation.batched else results[0]

    def stream(self, prompt: Any, **settings: Any) -> TextStream:
        """Like :meth:`Engine.stream <specdec.engine.Engine.stream>`."""
        if self._engine.tokenizer is None:
            raise PromptError("streaming text needs a tokenizer: give Engine(..., tokenizer=...)")
        return TextStream(self._start(prompt, single=True, **settings))

    def start(self, prompt: Any, **settings: Any) -> Generation:
        """A generation whose steps are run by iterating over it; arguments as for ``generate``."""
        return self._start(prompt, single=False, **settings)

    def start_batch(self, rows: list[list[int]], place: Place, **settings: Any) -> Generation:
        """The same for some of the prompts of a call."""
        return self._start(rows, single=False, place=place, **settings)

    def _start(
        self,
        prompt: Any,
        *,
        single: bool,
        place: Place | None = None,
        seed: int | Sequence[int] | None = None,
        stop: str | Sequence[str] | None = None,
        logits_processor: Any = None,
        logits_processor_by_prompt: Any = None,
        generation_config: Any = None,
        skip_special_tokens: bool = True,
        **fields: Any,
    ) -> Generation:
        engine = self._engine
        target = engine.target
        template = Template.taken_from(fields)
        sampling = resolve(
            engine.generation_config,
            fields,
            given=generation_config,
            stop=stop,
            logits_processor=logits_processor,
            logits_processor_by_prompt=logits_processor_by_prompt,
            default_new_tokens=DEFAULT_NEW_TOKENS,
        )
        if sampling.stop and engine.tokenizer is None:
            raise PromptError(
                f"stop strings need a tokenizer, and {list(sampling.stop)} are such: give "
                "Engine(..., tokenizer=...)"
            )
        if not isinstance(skip_special_tokens, bool):
            raise OptionError(f"skip_special_tokens={skip_special_tokens!r}: give True or False")
        prompts = encode(
            prompt,
            engine.tokenizer,
            vocab_size=target.vocab_size,
            context=target.context_limit,
            template=template,
        )
        if single and prompts.batched:
            raise PromptError("stream takes one prompt: give generate the batch")
        rows = prompts.rows
        seeds = torch.tensor(row_seeds(seed, len(rows)), device=target.device)
        limits = sampling.limits([len(row) for row in rows], target.context_limit)
        engine.reach(max(map(len, rows)))
        processors = sampling.processors([len(row) for row in rows], target.device, place)
        sampling.check_tokens(target.vocab_size)
        processors.check_support(target.vocab_size, target.device)
        kept, self._kept = self._kept, None
        drafter, cache, cached = self._reuse(kept, rows)
        if cache is None and engine.parts.verifier.uses_cache:
            cache = target.new_cache(len(rows), min(max(limits), max(map(len, rows)) + ROOM))
        state = State(
            rows,
            processors=processors,
            randomness=engine.make_randomness(seeds),
            stopping=StopRules(
                sampling.eos,
                sampling.stop,
                limits,
                [Detokenizer(engine.tokenizer, skip_special_tokens=False) for _ in rows]
                if sampling.stop
                else (),
            ),
            cache=cache,
            vocab_size=target.vocab_size,
            device=target.device,
            cached=cached,
        )
        return Generation(
            self,
            state,
            drafter,
            sampling,
            prompts.batched,
            skip_special_tokens=skip_special_tokens,
        )

    def _reuse(
        self, kept: _Kept | None, rows: list[list[int]]
    ) -> tuple[Drafter | None, Any, list[int] | None]:
        """The drafter and cache to go on with, and how much of each row they hold."""
        fresh = copy.copy(self._engine.parts.drafter)
        if kept is None or kept.state.cache is None or kept.state.rows != len(rows):
            return fresh, None, None
        old, cache = kept.state, kept.state.cache
        known = kept.drafter.cached_tokens() if kept.drafter else None
        reach = cache.lengths if known is None else torch.minimum(cache.lengths, known)
        starts = []
        for row, limit in enumerate(reach.tolist()):
            before = old.tokens[row, : old.host_lengths[row]].tolist()
            shared = 0
            while shared < min(len(before), len(rows[row])) and before[shared] == rows[row][shared]:
                shared += 1
            # A drafter may need the token after a feature, and something to read.
            starts.append(max(0, min(limit, shared - 2)))
        cache.truncate(torch.tensor(starts, device=cache.lengths.device), max(starts))
        return kept.drafter, cache, starts

    def _keep(self, state: State, drafter: Drafter | None) -> None:
        if self._keeps:
            self._kept = _Kept(state, drafter)

    def _compacts(self, state: State, drafter: Drafter | None) -> bool:
        """Whether finished rows may leave the batch: nothing later needs them, and the parts that
        keep something by row know how to let them go."""
        able = type(state.randomness).keep_rows is not Randomness.keep_rows
        if drafter is not None:
            able = able and type(drafter).keep_rows is not Drafter.keep_rows
        return able and not self._keeps and state.rows > 1


class Generation:
    """One generation: iterate to run it step by step, ask for results at any time.

    Attributes:
        batched: whether the caller gave several prompts.
        skip_special_tokens: whether texts leave out special tokens.
        state: the rows.
    """

    def __init__(
        self,
        session: Session,
        state: State,
        drafter: Drafter | None,
        sampling: Sampling,
        batched: bool,
        *,
        skip_special_tokens: bool = True,
    ) -> None:
        engine = session._engine
        self.skip_special_tokens = skip_special_tokens
        self.state, self.sampling, self.batched = state, sampling, batched
        self.clock = Clock()
        self.metrics = Metrics(state.rows, self.clock, lossless=engine.parts.acceptor.lossless)
        self._session, self._engine, self._drafter = session, engine, drafter
        self._prompt_lengths = list(state.host_lengths)
        self._tokens: list[list[int]] = [[] for _ in range(state.rows)]
        self._reasons = list(state.finish_reasons)
        self._running = self._steps()

    def __iter__(self) -> Iterator[Step]:
        return self._running

    def close(self) -> None:
        """Stop here: what has been committed stands."""
        self._running.close()

    def _steps(self) -> Generator[Step, None, None]:
        engine, state = self._engine, self.state
        compacts = self._session._compacts(state, self._drafter)
        parts = replace(
            engine.parts,
            drafter=self._drafter,
            policy=copy.copy(engine.parts.policy),
            compacts=compacts,
        )
        observers = engine.observers()
        between_steps = False
        try:
            for step in self.metrics.timed(decode(engine.target, parts, state, self.clock)):
                self._collect(step)
                self.metrics.observe(step)
                self.metrics.row_processor_seconds = state.processors.row_seconds
                for observe in observers:
                    observe(step=step)
                between_steps = True
                yield step
                between_steps = False
                if not state.finished:
                    engine.reach(min(state.longest + AHEAD, max(state.stopping.limits)))
            between_steps = True
        finally:
            if between_steps:
                self._session._keep(state, self._drafter)

    def new_tokens(self, row: int) -> list[int]:
        """The tokens that the answer to a prompt has so far."""
        return list(self._tokens[row])

    def results(self) -> list[GenerationResult]:
        """One for each prompt."""
        return [self._result(row) for row in range(len(self._tokens))]

    def _collect(self, step: Step) -> None:
        for member, tokens, why in zip(step.members, step.new_tokens, step.finished, strict=True):
            self._tokens[member] += tokens
            self._reasons[member] = why or self._reasons[member]

    def _result(self, row: int) -> GenerationResult:
        tokens = self.new_tokens(row)
        text = None
        if (tokenizer := self._engine.tokenizer) is not None:
            skip = self.skip_special_tokens
            text = text_of(tokenizer, tokens, self.sampling.stop, skip_special_tokens=skip)
        return GenerationResult(
            text=text,
            token_ids=tokens,
            finish_reason=self._reasons[row],
            stats=self.metrics.stats(row),
            prompt_tokens=self._prompt_lengths[row],
            strategy=self._engine.strategy.name,
        )


class TextStream:
    """The text of one row, piece by piece as it is committed.

    Iterate over it; afterwards (or after a break) :attr:`result` has everything.
    """

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._detokenizer = Detokenizer(
            generation._engine.tokenizer, skip_special_tokens=generation.skip_special_tokens
        )
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Stop here: what has been committed stands."""
        self._pieces.close()
        self._generation.close()

    @property
    def result(self) -> GenerationResult:
        """What has been generated so far."""
        return self._generation.results()[0]

    def _run(self) -> Generator[str, None, None]:
        stop = self._generation.sampling.stop
        given = 0
        try:
            for step in self._generation:
                for token in step.new_tokens[0]:
                    self._detokenizer.push(token, stop)
                if piece := self._detokenizer.take(stop):
                    given += len(piece)
                    yield piece
        finally:
            self._generation.close()
        text = self.result.text or ""
        if len(text) > given:
            yield text[given:]
