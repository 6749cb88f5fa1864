"""Sampling settings: transformers' GenerationConfig, resolved, checked, made into processors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import MaxTimeCriteria
from transformers.generation import logits_process as hf

from specdec.errors import OptionError, warn
from specdec.request.caller_processors import BatchRows, ByPrompt, processors_in, stages
from specdec.request.config_processors import penalties, warpers
from specdec.request.criteria import Criterion, criteria_in
from specdec.request.generation_fields import SAMPLING, apply, plain, settings_of
from specdec.request.logits_processors import Processors
from specdec.request.processor_stages import Stage
from specdec.request.stopping import stop_strings_in


@dataclass(frozen=True)
class Sampling:
    """One request's resolved settings.

    Attributes:
        config: the GenerationConfig with the call's arguments applied.
        greedy: whether the distribution is a point mass at the best token (temperature 0 or
            ``do_sample=False``).
        max_new_tokens: bound on new tokens, None for the context limit alone.
        eos: token ids that end a row.
        stop: strings that end a row.
        custom: the caller's own logits processors, those for all prompts.
        by_prompt: and those for each.
        bounded: whether the call itself bounds the number of tokens.
        criteria: the caller's own stopping criteria, with that of ``max_time``.
        samples: texts of each prompt.
    """

    config: GenerationConfig
    greedy: bool
    max_new_tokens: int | None
    eos: tuple[int, ...]
    stop: tuple[str, ...]
    custom: tuple[hf.LogitsProcessor, ...]
    by_prompt: Any = None
    bounded: bool = False
    criteria: tuple[Criterion, ...] = ()
    samples: int = 1

    @property
    def pad(self) -> int:
        """The token that stands where a row of a batch has none: the padding token, or else an eos,
        as in transformers' ``generate``."""
        known = (self.config.pad_token_id, *self.eos)
        return next((token for token in known if token is not None), 0)

    def limit(self, prompt_length: int, context: int) -> int:
        """The most tokens a row may have, prompt included.

        Raises:
            OptionError: ``max_length`` leaves no room behind the prompt.
        """
        if self.max_new_tokens is not None:
            return min(prompt_length + self.max_new_tokens, context)
        longest = int(self.config.max_length)
        if longest <= prompt_length:
            raise OptionError(
                f"max_length={longest} leaves no room: the prompt alone has {prompt_length} tokens"
                + ("" if self.bounded else ". It is the model's own: give max_new_tokens")
            )
        return min(longest, context)

    def limits(self, prompt_lengths: Sequence[int], context: int) -> list[int]:
        """The limit of each row. Warns where the context cuts what was asked for.

        Raises:
            OptionError: as for :meth:`limit`.
        """
        longest = max(prompt_lengths)
        name = "max_length" if self.max_new_tokens is None else "max_new_tokens"
        asked = getattr(self.config, name)
        room = context if self.max_new_tokens is None else context - longest
        if self.bounded and asked > room:
            warn(
                f"{name}={asked} is more than the model's context of {context} tokens has room "
                f"for: a prompt of {longest} tokens leaves {context - longest}"
            )
        return [self.limit(length, context) for length in prompt_lengths]

    def check_tokens(self, vocab_size: int) -> None:
        """Refuse settings about tokens that do not exist.

        Raises:
            OptionError: a token id that the vocabulary does not have.
        """
        biased = self.config.sequence_bias or ()
        for name, sequences in (
            ("bad_words_ids", self.config.bad_words_ids or ()),
            ("sequence_bias", biased if isinstance(biased, dict) else [pair[0] for pair in biased]),
        ):
            wrong = [token for sequence in sequences for token in sequence if token >= vocab_size]
            if wrong:
                raise OptionError(
                    f"{name} has token id {wrong[0]}: the vocabulary ends at {vocab_size - 1}"
                )

    def processors(
        self, prompt_lengths: Sequence[int], device: torch.device, place: BatchRows | None = None
    ) -> Processors:
        """The logits processors of a batch, in transformers' order.

        Args:
            prompt_lengths: tokens of each row's prompt.
            place: the prompts of the rows, where the call was given others too.

        Raises:
            OptionError: a processor that the prompts cannot share, or too few of them.
        """
        rows = len(prompt_lengths)
        place = place or BatchRows(range(rows), rows)
        by_prompt = ByPrompt.of(self.by_prompt, place.prompts)
        custom = stages(self.custom, place)
        custom += by_prompt.stages(place) if by_prompt else []
        try:
            before = penalties(self.config, self.eos, prompt_lengths, device)
            last = [] if self.greedy else [Stage.of(p) for p in warpers(self.config, device)]
        except (ValueError, TypeError) as error:
            raise OptionError(f"transformers refuses a setting: {error}") from error
        return Processors([*before, *custom], last, greedy=self.greedy)


def resolve(
    base: GenerationConfig,
    fields: Mapping[str, Any],
    *,
    given: GenerationConfig | Mapping[str, Any] | None = None,
    stop: str | Sequence[str] | None = None,
    logits_processor: Sequence[hf.LogitsProcessor] | hf.LogitsProcessor | None = None,
    logits_processor_by_prompt: Any = None,
    stopping_criteria: Any = None,
    n: int | None = None,
    default_new_tokens: int,
) -> Sampling:
    """Apply a call's arguments to the model's generation config and check the result.

    What the call sets comes before what ``given`` sets, and that before ``base``.
    ``temperature=0`` means greedy, a positive temperature turns sampling on unless ``do_sample``
    says otherwise. What neither the call nor the model's config sets is off: in particular no
    top-k of 50.

    Args:
        base: the model's own config.
        fields: the call's arguments that are fields of a GenerationConfig.
        given: the call's argument ``generation_config``.

    Raises:
        UnknownNameError: an argument that is no GenerationConfig field.
        OptionError: a value that is out of range, or a field that specdec does not support.
    """
    config = copy.deepcopy(base)
    settings = settings_of(given)
    fields = {name: plain(value) for name, value in fields.items()}
    if n is not None:
        samples, said = _checked_samples(plain(n)), fields.get("num_return_sequences")
        if said not in (None, samples):
            raise OptionError(
                f"n={samples} and num_return_sequences={said!r} say the same: give one of them"
            )
        fields["num_return_sequences"] = samples
    apply(config, fields, settings)
    asked = {**settings, **{name: value for name, value in fields.items() if value is not None}}
    temperature = config.temperature
    do_sample = bool(config.do_sample)
    if fields.get("do_sample") is None and fields.get("temperature") is not None:
        do_sample = temperature > 0
    greedy = not do_sample or temperature == 0
    if greedy:
        _warn_of_idle(asked, do_sample=do_sample)
    eos = config.eos_token_id
    stops = stop_strings_in(stop) + stop_strings_in(config.stop_strings, "stop_strings")
    criteria = criteria_in(stopping_criteria)
    if config.max_time is not None:
        criteria = (*criteria, MaxTimeCriteria(config.max_time))
    samples = config.num_return_sequences or 1
    if greedy and samples > 1:
        raise OptionError(
            f"{samples} texts of each prompt (n, num_return_sequences) would all be the same: "
            "decoding is greedy. Give temperature > 0 to sample"
        )
    custom = processors_in(logits_processor)
    if config.max_new_tokens is None and config.max_length is None:
        config.max_new_tokens = default_new_tokens
    return Sampling(
        config=config,
        greedy=greedy,
        max_new_tokens=config.max_new_tokens,
        eos=() if eos is None else (eos,) if isinstance(eos, int) else tuple(eos),
        stop=stops,
        custom=custom,
        by_prompt=logits_processor_by_prompt,
        bounded=not {"max_new_tokens", "max_length"}.isdisjoint(asked),
        criteria=criteria,
        samples=samples,
    )


def _checked_samples(n: Any) -> int:
    if type(n) is not int or n < 1:
        raise OptionError(f"n must be a whole number from 1 on, not {n!r}")
    return n


def _warn_of_idle(asked: Mapping[str, Any], *, do_sample: bool) -> None:
    """Name the sampling settings that were asked for and change nothing."""
    idle = [name for name in SAMPLING if name in asked]
    if asked.get("temperature", 0) > 0:
        idle.insert(0, "temperature")
    remedy = "give temperature > 0 to sample"
    if do_sample and "do_sample" in asked:
        idle.insert(0, "do_sample")
    elif not do_sample and ("temperature" in idle or "do_sample" in asked):
        remedy = "give do_sample=True to sample"
    if idle:
        warn(f"{', '.join(idle)} has no effect on greedy decoding: {remedy}")
