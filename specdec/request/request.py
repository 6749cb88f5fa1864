"""The request of one call: prompts, seeds and settings, resolved once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from specdec.errors import OptionError, PromptError
from specdec.request.caller_processors import ByPrompt, Place
from specdec.request.chat_template import Template
from specdec.request.generation_config import Sampling, resolve
from specdec.request.prompts import encode
from specdec.request.seeds import row_seeds

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True)
class Request:
    """What a caller asked for. Nothing in it depends on a strategy.

    Attributes:
        rows: token ids of each prompt.
        batched: whether the caller gave several prompts, and so gets a list back.
        seeds: one for each prompt.
        limits: for each prompt the most tokens that it may have, answer included.
        sampling: sampling settings and stop rules.
        skip_special_tokens: whether texts leave out special tokens.
        place: where the prompts stand among those of the call.
        trace: whether results have a trace.
    """

    rows: list[list[int]]
    batched: bool
    seeds: list[int]
    limits: list[int]
    sampling: Sampling
    skip_special_tokens: bool
    place: Place
    trace: bool = False

    @classmethod
    def together(cls, requests: Sequence[Request]) -> Request:
        """One request for the prompts of several whose sampling settings are equal."""
        rows = [row for request in requests for row in request.rows]
        return replace(
            requests[0],
            rows=rows,
            batched=True,
            seeds=[seed for request in requests for seed in request.seeds],
            limits=[limit for request in requests for limit in request.limits],
            place=Place(range(len(rows)), len(rows)),
        )

    @property
    def digest(self) -> str:
        """Equal for equal requests; logits processors left out."""
        sampling = self.sampling
        rules = (sampling.greedy, sampling.eos, sampling.stop, sampling.config.to_diff_dict())
        said = repr((self.rows, self.seeds, self.limits, self.trace, rules))
        return hashlib.sha256(said.encode()).hexdigest()

    def part(self, prompts: Sequence[int]) -> Request:
        """The request for some of its prompts."""
        return replace(
            self,
            rows=[self.rows[index] for index in prompts],
            seeds=[self.seeds[index] for index in prompts],
            limits=[self.limits[index] for index in prompts],
            place=Place([self.place.prompts[index] for index in prompts], self.place.total),
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
    trace = fields.pop("trace", False)
    sampling = resolve(
        base,
        given=fields.pop("generation_config", None),
        stop=fields.pop("stop", None),
        logits_processor=fields.pop("logits_processor", None),
        logits_processor_by_prompt=fields.pop("logits_processor_by_prompt", None),
        fields=fields,
        default_new_tokens=DEFAULT_NEW_TOKENS,
    )
    if sampling.stop and tokenizer is None:
        raise PromptError(
            f"stop strings need a tokenizer, and {list(sampling.stop)} are such: give "
            "Engine(..., tokenizer=...)"
        )
    for name, flag in (("skip_special_tokens", skip_special_tokens), ("trace", trace)):
        if not isinstance(flag, bool):
            raise OptionError(f"{name}={flag!r}: give True or False")
    prompts = encode(prompt, tokenizer, vocab_size=vocab_size, context=context, template=template)
    rows = prompts.rows
    seeds = row_seeds(seed, len(rows))
    by_prompt = ByPrompt.of(sampling.by_prompt, len(rows))
    sampling.check_tokens(vocab_size)
    return Request(
        rows,
        prompts.batched,
        seeds,
        sampling.limits([len(row) for row in rows], context),
        replace(sampling, by_prompt=by_prompt),
        skip_special_tokens,
        Place(range(len(rows)), len(rows)),
        trace,
    )
