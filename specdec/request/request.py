"""The request of one call: prompts, seeds and settings, resolved once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from specdec.booleans import check_bools
from specdec.errors import OptionError, PromptError
from specdec.request.caller_processors import BatchRows, ByPrompt
from specdec.request.chat_template import Template
from specdec.request.generation_config import Sampling, resolve
from specdec.request.generation_fields import plain
from specdec.request.prompts import encode
from specdec.request.seeds import row_seeds

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True)
class Request:
    """What a caller asked for. Nothing in it depends on a strategy.

    Attributes:
        rows: token ids of each prompt, ``sampling.samples`` times each.
        batched: whether the caller asked for several texts, and so gets a list back.
        seeds: one for each row.
        limits: for each row the most tokens that it may have, answer included.
        sampling: sampling settings and stop rules.
        skip_special_tokens: whether texts leave out special tokens.
        place: where the rows stand among those of the call.
        trace: whether results have a trace.
        logprobs: how many of the likeliest tokens are reported beside each token of an answer; None
            for no log-probabilities at all.
        keeps_scores: whether steps have the processed scores of their tokens, ``step.scores``.
    """

    rows: list[list[int]]
    batched: bool
    seeds: list[int]
    limits: list[int]
    sampling: Sampling
    skip_special_tokens: bool
    place: BatchRows
    trace: bool = False
    logprobs: int | None = None
    keeps_scores: bool = False

    @classmethod
    def together(cls, requests: Sequence[Request]) -> Request:
        """One request for the prompts of several that differ in prompts, seeds and limits alone."""
        rows = [row for request in requests for row in request.rows]
        return replace(
            first := requests[0],
            rows=rows,
            batched=True,
            seeds=[seed for request in requests for seed in request.seeds],
            limits=[limit for request in requests for limit in request.limits],
            place=BatchRows(range(len(rows)), len(rows), first.place.samples),
        )

    @property
    def digest(self) -> str:
        """Equal for equal requests; of stopping criteria the number, logits processors left out."""
        sampling = self.sampling
        rules = (sampling.greedy, sampling.eos, sampling.stop, sampling.config.to_diff_dict())
        asked = (self.trace, self.logprobs, self.keeps_scores, len(sampling.criteria))
        said = repr((self.rows, self.seeds, self.limits, self.place.samples, asked, rules))
        return hashlib.sha256(said.encode()).hexdigest()

    def part(self, rows: Sequence[int]) -> Request:
        """The request for some of its rows."""
        return replace(
            self,
            rows=[self.rows[row] for row in rows],
            seeds=[self.seeds[row] for row in rows],
            limits=[self.limits[row] for row in rows],
            place=self.place.part(rows),
        )


def make_request(
    prompt: Any,
    settings: Mapping[str, Any],
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    vocab_size: int,
    context: int,
    base: GenerationConfig,
) -> Request:
    """Encode the prompts, resolve settings and seeds, check what can be checked before decoding.

    Args:
        prompt: as for :meth:`Engine.generate <specdec.engine.Engine.generate>`.
        settings: the call's other arguments by name.
        vocab_size: tokens V of the target.
        context: the most tokens that it takes.
        base: the model's own defaults.

    Raises:
        PromptError: a prompt that cannot be decoded, or stop strings without a tokenizer.
        OptionError: a value that is not allowed.
        UnknownNameError: an argument that does not exist.
    """
    fields = dict(settings)
    template = Template.taken_from(fields)
    seed, skip_special_tokens = fields.pop("seed", None), fields.pop("skip_special_tokens", True)
    trace, logprobs = fields.pop("trace", False), plain(fields.pop("logprobs", None))
    n = fields.pop("n", None)
    sampling = resolve(
        base,
        given=fields.pop("generation_config", None),
        stop=fields.pop("stop", None),
        logits_processor=fields.pop("logits_processor", None),
        logits_processor_by_prompt=fields.pop("logits_processor_by_prompt", None),
        stopping_criteria=fields.pop("stopping_criteria", None),
        n=n,
        fields=fields,
        default_new_tokens=DEFAULT_NEW_TOKENS,
    )
    if sampling.stop and tokenizer is None:
        raise PromptError(
            f"stop strings need a tokenizer, and {list(sampling.stop)} are such: give "
            "Engine(..., tokenizer=...)"
        )
    check_bools(skip_special_tokens=skip_special_tokens, trace=trace)
    if logprobs is not None and (type(logprobs) is not int or not 0 <= logprobs <= vocab_size):
        raise OptionError(
            f"logprobs={logprobs!r}: give how many of the likeliest tokens to report beside each "
            f"token, a whole number from 0 to {vocab_size}"
        )
    prompts = encode(prompt, tokenizer, vocab_size=vocab_size, context=context, template=template)
    samples = sampling.samples
    rows = [row for row in prompts.rows for _ in range(samples)]
    seeds = row_seeds(seed, len(rows), samples)
    by_prompt = ByPrompt.of(sampling.by_prompt, len(prompts.rows))
    sampling.check_tokens(vocab_size)
    return Request(
        rows,
        prompts.batched or samples > 1 or n is not None,
        seeds,
        sampling.limits([len(row) for row in rows], context),
        replace(sampling, by_prompt=by_prompt),
        skip_special_tokens,
        BatchRows(range(len(rows)), len(rows), samples),
        trace,
        logprobs,
        keeps_scores=logprobs is not None,
    )
