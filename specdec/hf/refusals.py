"""What the drop-in cannot do is refused by name; what changes no token is accepted, and told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from specdec.errors import OptionError, PromptError, warn

# Fields of a GenerationConfig that the drop-in honours, most of them through the logits processors
# and stopping criteria that transformers makes of them.
HONOURED = frozenset((
    "max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time", "stop_strings",
    "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "renormalize_logits", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "guidance_scale",
    "watermarking_config", "num_return_sequences", "output_scores", "output_logits",
    "return_dict_in_generate", "pad_token_id", "bos_token_id", "eos_token_id",
))  # fmt: skip
_BEAMS = "only beam search reads it, and that is refused"
_ASSISTED = (
    "only transformers' own assisted generation reads it, which does not run; the strategy's "
    "options say what is drafted"
)
# Fields that change no token here, nor in transformers' own greedy and sampled decoding, and why.
WITHOUT_EFFECT = {
    "early_stopping": _BEAMS,
    "length_penalty": _BEAMS,
    "diversity_penalty": _BEAMS,
    "low_memory": "only contrastive search reads it, and that is refused",
    "decoder_start_token_id": "only encoder-decoder models read it, and those are refused",
    "num_assistant_tokens": _ASSISTED,
    "num_assistant_tokens_schedule": _ASSISTED,
    "assistant_confidence_threshold": _ASSISTED,
    "assistant_lookbehind": _ASSISTED,
    "target_lookbehind": _ASSISTED,
    "assistant_ensemble_weight": _ASSISTED,
    "max_matching_ngram_size": _ASSISTED,
    "speculation_type": _ASSISTED,
    "use_cache": "the engine always has a cache, of its own",
    "disable_compile": "decoder(compile=True) says what is compiled, and nothing is without it",
    "transformers_version": "a note in the file; no warning",
}
_OWN_CACHE = "the engine has a cache of its own. Leave it out"
# Refused fields: values at which they are off, and what to do.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_beams": ((1,), "there is no beam search. Leave it at 1"),
    "num_beam_groups": ((1,), "there is no beam search. Leave it at 1"),
    "penalty_alpha": ((0, 0.0), "there is no contrastive search. Leave it out"),
    "dola_layers": ((), "layers are not contrasted. Leave it out"),
    "constraints": ((), "there is no beam search. Leave it out"),
    "force_words_ids": ((), "there is no beam search. Leave it out"),
    "use_mtp": ((False,), "the strategy says what drafts. Leave it out"),
    "prompt_lookup_num_tokens": ((), "give decoder(strategy='lookup')"),
    "assistant_early_exit": ((), "the strategy says what drafts. Leave it out"),
    "token_healing": (
        (False,),
        "it takes the tokenizer, which transformers does not hand on. Leave it out",
    ),
    "is_assistant": ((False,), "an assistant does not draft for itself. Leave it out"),
    "output_attentions": (
        (False,),
        "tokens are verified several at a time, and none has attentions of its own. Leave it out",
    ),
    "output_hidden_states": (
        (False,),
        "hidden states are read by the drafter alone. Call the model on the finished text",
    ),
    "cache_implementation": (
        ("dynamic", "dynamic_full"),
        "the engine has a cache of its own, a dynamic one. Leave it out",
    ),
    "cache_config": ((), _OWN_CACHE),
    "max_cache_len": ((), _OWN_CACHE),
    "prefill_chunk_size": ((), "prompts are read in one forward. Leave it out"),
    "compile_config": ((), "give decoder(compile=True)"),
    "continuous_batching_config": ((), "batches are not continuous. Leave it out"),
}
# Arguments that generate does not hand on.
DROPPED = {
    "assistant_model": "give decoder(strategy='draft_model', drafter=...), which may be the "
    "assistant, and leave out assistant_model",
    "synced_gpus": "ranks do not wait for each other. Leave it out",
}
_CACHES = ("cache", "past_key_values")
_SEGMENTS = ("token_type_ids", "mm_token_type_ids")


def check_config(config: GenerationConfig) -> None:
    """Refuse settings that cannot be honoured.

    Raises:
        OptionError: such a field, by its name.
    """
    known = vars(GenerationConfig())
    for name, value in vars(config).items():
        if name.startswith("_") or name in HONOURED or name in WITHOUT_EFFECT or value is None:
            continue
        off, remedy = REFUSED.get(name, ((False,), "it is not known here. Leave it out"))
        if name in known and not any(type(value) is type(o) and value == o for o in off):
            raise OptionError(f"specdec cannot honour {name}={value!r} in generate: {remedy}")


def warn_of_idle(config: GenerationConfig, own: GenerationConfig | None) -> None:
    """Warn of settings of the call that have no effect.

    Args:
        config: as ``generate`` has prepared it.
        own: of the model. What is set there, or by default, nobody asked for.
    """
    defaults = {**vars(GenerationConfig()), **GenerationConfig._get_default_generation_params()}
    for name, why in WITHOUT_EFFECT.items():
        value = getattr(config, name, None)
        off = value is None or (value is False and name != "use_cache")
        usual = value in (defaults.get(name), getattr(own, name, None))
        if off or usual or name == "transformers_version":
            continue
        warn(f"{name}={value!r} has no effect in specdec's generate: {why}")


def check_dropped(dropped: Mapping[str, Any]) -> None:
    """Refuse arguments of ``generate`` that would be ignored.

    Raises:
        OptionError: such an argument, by its name.
    """
    for name, remedy in DROPPED.items():
        if dropped.get(name):
            raise OptionError(f"specdec cannot honour {name} in generate: {remedy}")


def check_given_once(name: str, own: Any, given: Any) -> None:
    """Refuse an argument that both ``decoder`` and ``generate`` were given.

    Raises:
        OptionError: such an argument, by its name.
    """
    if own is not None and given is not None:
        raise OptionError(
            f"{name} is given to decoder and to generate, and only one of them can be used: leave "
            "it out of one"
        )


def check_inputs(mask: Tensor | None, input_ids: Tensor, inputs: Mapping[str, Any]) -> None:
    """Refuse inputs that are not text alone, read from its beginning.

    Args:
        mask: ``[B, P]`` on the device of the tokens, None where nothing is padded.
        input_ids: ``[B, P]``.
        inputs: what ``generate`` hands to the model, by name.

    Raises:
        PromptError: embeddings, images and the like, a cache of the caller's own, no tokens, a
            mask of another shape, padding that is not on the left, positions of the caller's own.
    """
    for name, value in inputs.items():
        if not _taken(name, value):
            raise _unreadable(name)
    if input_ids.shape[-1] == 0:
        raise PromptError(
            f"input_ids {list(input_ids.shape)} have no tokens: give at least one to go on from"
        )
    mask = input_ids.new_ones(input_ids.shape) if mask is None else mask
    if mask.shape != input_ids.shape or not ((mask == 0) | (mask == 1)).all():
        raise PromptError(
            f"attention_mask must be zeros and ones {list(input_ids.shape)}, as input_ids, not "
            f"{mask.dtype} {list(mask.shape)}"
        )
    if (mask[:, 1:] < mask[:, :-1]).any() or (mask[:, -1] == 0).any():
        raise PromptError(
            "attention_mask has zeros after a token: pad on the left alone, with "
            "tokenizer.padding_side = 'left'"
        )
    if (positions := inputs.get("position_ids")) is not None:
        _check_positions(positions, mask)


def _taken(name: str, value: Any) -> bool:
    """Whether an input is the text, changes nothing, or is looked at beside the mask."""
    if value is None or value is False or name in ("attention_mask", "use_cache", "position_ids"):
        return True
    if name == "logits_to_keep":
        return type(value) is int and value == 1
    if name in _CACHES:
        return _is_fresh(value)
    return name in _SEGMENTS and isinstance(value, Tensor) and not value.any()


def _unreadable(name: str) -> PromptError:
    return PromptError(
        f"specdec cannot honour {name} in generate: it reads text alone, from its beginning, as "
        f"input_ids and attention_mask. Leave out {name}"
    )


def _check_positions(positions: Any, mask: Tensor) -> None:
    """Refuse positions other than the numbers of the tokens.

    ``generate`` makes them of the caller's mask, and hands on no mask that is all ones: those of
    another shape tell of one that was of another shape.
    """
    if not isinstance(positions, Tensor) or positions.dim() != 2:
        raise _unreadable("position_ids")
    rows, tokens = mask.shape
    if positions.shape[1] != tokens or positions.shape[0] not in (1, rows):
        raise PromptError(
            f"attention_mask, or position_ids, are {list(positions.shape)}, and input_ids "
            f"{[rows, tokens]}: give the mask in the shape of input_ids, and leave out position_ids"
        )
    counted = (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)
    if not ((positions.to(mask.device) == counted) | (mask == 0)).all():
        raise _unreadable("position_ids")


def _is_fresh(cache: Any) -> bool:
    """Whether a cache is one that ``generate`` has just made."""
    own = getattr(cache, "_is_user_defined", False)
    return not own and (not hasattr(cache, "get_seq_length") or cache.get_seq_length() == 0)
