"""Sampling settings: transformers' GenerationConfig, resolved, checked, made into processors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import logits_process as hf

from specdec.errors import OptionError, UnknownNameError
from specdec.processors import PerRow, Processors, Stage

# Fields of GenerationConfig that specdec honours. Any other field that is set to something other
# than its neutral value is refused, never ignored.
LENGTH = {"max_length", "max_new_tokens", "min_length", "min_new_tokens"}
STOPPING = {"stop_strings", "eos_token_id"}
SAMPLING = {
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "renormalize_logits",
}
PENALTIES = {
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "sequence_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
    "remove_invalid_values",
}
SUPPORTED = LENGTH | STOPPING | SAMPLING | PENALTIES

# Settings that are no part of the law: where the cache lives, tokens for padding, provenance.
_IRRELEVANT = {
    "pad_token_id",
    "bos_token_id",
    "use_cache",
    "cache_implementation",
    "cache_config",
    "max_cache_len",
    "early_stopping",
    "length_penalty",
    "compile_config",
    "disable_compile",
    "transformers_version",
    "_from_model_config",
    "_commit_hash",
    "decoder_start_token_id",
    "token_healing",
    "prefill_chunk_size",
    "is_assistant",
    "low_memory",
}
_ASSISTED = ("assistant", "lookbehind", "max_matching_ngram_size", "speculation_type", "use_mtp")
_NEUTRAL = {None, False, 1, "auto"}


@dataclass(frozen=True)
class Sampling:
    """One request's resolved settings.

    Attributes:
        config: the GenerationConfig with the call's arguments applied.
        greedy: whether the law is a point mass at the best token (temperature 0 or
            ``do_sample=False``).
        max_new_tokens: bound on new tokens, None for the context limit alone.
        eos: token ids that end a row.
        stop: strings that end a row.
        custom: the caller's own logits processors.
    """

    config: GenerationConfig
    greedy: bool
    max_new_tokens: int | None
    eos: tuple[int, ...]
    stop: tuple[str, ...]
    custom: tuple[hf.LogitsProcessor, ...]

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
            )
        return min(longest, context)

    def processors(self, prompt_lengths: Sequence[int], device: torch.device) -> Processors:
        """The logits processors of a batch, in transformers' order.

        Args:
            prompt_lengths: tokens of each row's prompt.
        """
        stages = [
            *_penalties(self.config, self.eos, prompt_lengths, device),
            *(Stage.of(processor) for processor in self.custom),
        ]
        warps = [] if self.greedy else [Stage.of(p) for p in _warpers(self.config, device)]
        return Processors(stages, warps, greedy=self.greedy)


def resolve(
    base: GenerationConfig,
    fields: Mapping[str, Any],
    *,
    stop: str | Sequence[str] | None = None,
    logits_processor: Sequence[hf.LogitsProcessor] | hf.LogitsProcessor | None = None,
    default_new_tokens: int,
) -> Sampling:
    """Apply a call's arguments to the model's generation config and check the result.

    ``temperature=0`` means greedy, a positive temperature turns sampling on unless ``do_sample``
    says otherwise. What neither the call nor the model's config sets is off: in particular no
    top-k of 50.

    Raises:
        UnknownNameError: an argument that is no GenerationConfig field.
        OptionError: a value that is out of range, or a field that specdec does not support.
    """
    config = GenerationConfig(**{k: v for k, v in base.to_dict().items() if v is not None})
    for name, value in fields.items():
        if not hasattr(config, name) or name.startswith("_"):
            raise UnknownNameError("argument of generate", name, SUPPORTED)
        if value is not None:
            setattr(config, name, value)
    _refuse_unsupported(config)
    _check_ranges(config)

    temperature = config.temperature
    asked_to_sample = fields.get("do_sample")
    if asked_to_sample is None and fields.get("temperature") is not None:
        asked_to_sample = temperature > 0
    do_sample = bool(config.do_sample if asked_to_sample is None else asked_to_sample)
    greedy = not do_sample or temperature == 0
    idle = [n for n in sorted(SAMPLING) if fields.get(n) not in (None, False)] if greedy else []
    if idle := [name for name in idle if name not in ("do_sample", "temperature")]:
        warnings.warn(
            f"{', '.join(idle)} has no effect on greedy decoding: give temperature > 0 to sample",
            stacklevel=2,
        )
    eos = config.eos_token_id
    stops = [stop] if isinstance(stop, str) else list(stop or [])
    configured = config.stop_strings or []
    stops += [configured] if isinstance(configured, str) else list(configured)
    if any(not isinstance(s, str) or not s for s in stops):
        raise OptionError(f"stop must be a non-empty string or a list of them, not {stop!r}")
    if isinstance(logits_processor, hf.LogitsProcessor) or callable(logits_processor):
        logits_processor = [logits_processor]
    if config.max_new_tokens is None and config.max_length is None:
        config.max_new_tokens = default_new_tokens
    return Sampling(
        config=config,
        greedy=greedy,
        max_new_tokens=config.max_new_tokens,
        eos=() if eos is None else (eos,) if isinstance(eos, int) else tuple(eos),
        stop=tuple(stops),
        custom=tuple(logits_processor or ()),
    )


def _refuse_unsupported(config: GenerationConfig) -> None:
    for name, value in config.to_dict().items():
        if name in SUPPORTED or name in _IRRELEVANT or any(a in name for a in _ASSISTED):
            continue
        if isinstance(value, (dict, list)) or value not in _NEUTRAL:
            raise OptionError(
                f"{name}={value!r} is not supported: specdec honours {', '.join(sorted(SUPPORTED))}"
            )


def _check_ranges(config: GenerationConfig) -> None:
    def need(name: str, allowed: str, ok: bool) -> None:
        if not ok:
            raise OptionError(f"{name}={getattr(config, name)!r}: it must be {allowed}")

    def number(name: str, *, whole: bool = False) -> Any:
        value = getattr(config, name)
        kinds = (int,) if whole else (int, float)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise OptionError(f"{name}={value!r}: it must be {'an int' if whole else 'a number'}")
        return value

    new = number("max_new_tokens", whole=True)
    need("max_new_tokens", "at least 1", new is None or new >= 1)
    length = number("max_length", whole=True)
    need("max_length", "at least 1", length is None or length >= 1)
    temperature = number("temperature")
    need("temperature", "at least 0 (0 is greedy)", temperature is None or 0 <= temperature < 1e9)
    top_k = number("top_k", whole=True)
    need("top_k", "at least 0 (0 turns it off)", top_k is None or top_k >= 0)
    for name in ("top_p", "typical_p"):
        value = number(name)
        need(name, "above 0 and at most 1", value is None or 0 < value <= 1)
    min_p = number("min_p")
    need("min_p", "between 0 and 1", min_p is None or 0 <= min_p <= 1)
    penalty = number("repetition_penalty")
    need("repetition_penalty", "above 0 (1 turns it off)", penalty is None or penalty > 0)


def _penalties(
    config: GenerationConfig,
    eos: Sequence[int],
    prompt_lengths: Sequence[int],
    device: torch.device,
) -> list[Stage]:
    stages: list[Stage] = []
    eos_ids = torch.tensor(list(eos), device=device) if eos else None
    if config.sequence_bias is not None:
        stages.append(Stage.of(hf.SequenceBiasLogitsProcessor(config.sequence_bias)))
    if config.repetition_penalty not in (None, 1, 1.0):
        stages.append(Stage.of(hf.RepetitionPenaltyLogitsProcessor(config.repetition_penalty)))
    if config.no_repeat_ngram_size:
        stages.append(Stage.of(hf.NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size)))
    if config.bad_words_ids is not None:
        stages.append(Stage.of(hf.NoBadWordsLogitsProcessor(config.bad_words_ids, eos_ids)))
    if config.min_length and eos_ids is not None:
        stages.append(
            Stage.of(hf.MinLengthLogitsProcessor(config.min_length, eos_ids, device=str(device)))
        )
    if config.min_new_tokens and eos_ids is not None:
        stages.append(
            PerRow(
                [
                    hf.MinNewTokensLengthLogitsProcessor(
                        n, config.min_new_tokens, eos_ids, device=str(device)
                    )
                    for n in prompt_lengths
                ]
            )
        )
    if config.remove_invalid_values:
        stages.append(Stage.of(hf.InfNanRemoveLogitsProcessor()))
    if config.suppress_tokens is not None:
        stages.append(
            Stage.of(hf.SuppressTokensLogitsProcessor(config.suppress_tokens, device=str(device)))
        )
    if config.begin_suppress_tokens is not None:
        stages.append(
            PerRow(
                [
                    hf.SuppressTokensAtBeginLogitsProcessor(
                        config.begin_suppress_tokens, n, device=str(device)
                    )
                    for n in prompt_lengths
                ]
            )
        )
    return stages


def _warpers(config: GenerationConfig, device: torch.device) -> list[hf.LogitsProcessor]:
    warpers: list[hf.LogitsProcessor] = []
    if config.temperature not in (None, 1, 1.0):
        warpers.append(hf.TemperatureLogitsWarper(float(config.temperature)))
    if config.top_h is not None:
        warpers.append(hf.TopHLogitsWarper(top_h=config.top_h))
    if config.top_k:
        warpers.append(hf.TopKLogitsWarper(top_k=config.top_k))
    if config.top_p is not None and config.top_p < 1:
        warpers.append(hf.TopPLogitsWarper(top_p=float(config.top_p)))
    if config.min_p is not None:
        warpers.append(hf.MinPLogitsWarper(min_p=config.min_p))
    if config.typical_p is not None and config.typical_p < 1:
        warpers.append(hf.TypicalLogitsWarper(mass=config.typical_p))
    if config.epsilon_cutoff is not None and 0 < config.epsilon_cutoff < 1:
        warpers.append(hf.EpsilonLogitsWarper(epsilon=config.epsilon_cutoff))
    if config.eta_cutoff is not None and 0 < config.eta_cutoff < 1:
        warpers.append(hf.EtaLogitsWarper(epsilon=config.eta_cutoff, device=str(device)))
    if config.renormalize_logits:
        warpers.append(hf.LogitNormalization())
    return warpers
