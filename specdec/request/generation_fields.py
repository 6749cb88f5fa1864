"""The fields of transformers' GenerationConfig that are honoured, and their allowed values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor
from transformers import GenerationConfig

from specdec.errors import OptionError, UnknownNameError, warn

# The arguments of Engine.generate that are no fields of a GenerationConfig.
ARGUMENTS = (
    "prompt", "stop", "stopping_criteria", "seed", "n", "logprobs", "streamer", "logits_processor",
    "logits_processor_by_prompt", "generation_config", "tools", "chat_template_kwargs",
    "continue_final_message", "add_generation_prompt", "skip_special_tokens", "trace", "batch_size",
    "progress",
)  # fmt: skip

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(gt=0, le=1)]
_Cutoff = Annotated[float, Field(ge=0, lt=1)]
_Token = Annotated[int, Field(ge=0, lt=1 << 63)]
_Ids = list[_Token] | tuple[_Token, ...]


class Fields(BaseModel):
    """The fields that are honoured; descriptions say what is allowed."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    max_length: _Positive | None = Field(None, description="an int, at least 1")
    max_new_tokens: _Positive | None = Field(None, description="an int, at least 1")
    min_length: _Count | None = Field(None, description="an int, at least 0")
    min_new_tokens: _Count | None = Field(None, description="an int, at least 0")
    max_time: Annotated[float, Field(gt=0)] | None = Field(
        None, description="a number of seconds above 0"
    )
    num_return_sequences: _Positive | None = Field(
        None, description="an int, at least 1; the argument n says the same"
    )
    stop_strings: str | list[str] | tuple[str, ...] | None = Field(
        None, description="a string or a list of them"
    )
    eos_token_id: _Token | _Ids | None = Field(None, description="a token id or a list of them")
    do_sample: bool | None = Field(None, description="True or False")
    temperature: Annotated[float, Field(ge=0, lt=1e9)] | None = Field(
        None, description="a number, at least 0 (0 is greedy, anything else at least 1e-6)"
    )
    top_k: _Count | None = Field(None, description="an int, at least 0 (0 turns it off)")
    top_p: _Share | None = Field(None, description="a number above 0 and at most 1")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="a number between 0 and 1"
    )
    top_h: _Share | None = Field(None, description="a number above 0 and at most 1")
    typical_p: _Share | None = Field(None, description="a number above 0 and at most 1")
    epsilon_cutoff: _Cutoff | None = Field(None, description="a number, 0 or more and below 1")
    eta_cutoff: _Cutoff | None = Field(None, description="a number, 0 or more and below 1")
    renormalize_logits: bool | None = Field(None, description="True or False")
    repetition_penalty: Annotated[float, Field(gt=0)] | None = Field(
        None, description="a number above 0 (1 turns it off)"
    )
    no_repeat_ngram_size: _Count | None = Field(None, description="an int, at least 0")
    bad_words_ids: Annotated[list[list[_Token]], Field(min_length=1)] | None = Field(
        None, description="a list of lists of token ids, at least one"
    )
    sequence_bias: Any = Field(
        None,
        description="a list of pairs of a list of token ids and a float, or a mapping from tuples",
    )
    suppress_tokens: _Ids | None = Field(None, description="a list of token ids")
    begin_suppress_tokens: _Ids | None = Field(None, description="a list of token ids")
    remove_invalid_values: bool | None = Field(None, description="True or False")

    @field_validator("sequence_bias")
    @classmethod
    def _of_sequences(cls, value: Any) -> Any:
        kind, pairs = (tuple, value.items()) if isinstance(value, dict) else (list, value)
        if value is not None and not (
            value
            and isinstance(value, (dict, list))
            and all(_is_bias(kind, each) for each in pairs)
        ):
            raise ValueError("transformers does not take it")
        return value

    @field_validator("temperature")
    @classmethod
    def _no_overflow(cls, value: float | None) -> float | None:
        if value is not None and 0 < value < 1e-6:
            raise ValueError("logits divided by it would overflow")
        return value


def _is_bias(kind: type, pair: Any) -> bool:
    """Whether it is the ids of a sequence, in a list or a tuple, and its bias."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], kind):
        return False
    ids, bias = pair
    whole = (isinstance(token, (int, np.integer)) and 0 <= token < 1 << 63 for token in ids)
    return bool(ids) and all(whole) and isinstance(bias, float)


SAMPLING = (
    "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip

# Settings without effect on the text: rows are never padded, and there is always a cache.
HARMLESS = ("pad_token_id", "bos_token_id", "use_cache")
# Settings of a config that are no part of the distribution: where transformers' cache lives,
# provenance, its own assisted generation, what its generate returns, beam search's where no beams
# are. In a call they are refused, in a config they are left alone, as is every name that
# transformers itself does not have: its generate does not read it.
_IRRELEVANT = (
    "decoder_start_token_id", "cache_", "max_cache_len", "compile_config", "disable_compile",
    "transformers_version", "prefill_chunk_size", "low_memory", "early_stopping", "length_penalty",
    "num_beam_groups", "diversity_penalty", "is_assistant", "assistant_", "num_assistant_tokens",
    "target_lookbehind", "max_matching_ngram_size", "prompt_lookup", "use_mtp", "speculation_type",
    "continuous_batching_config", "output_", "return_dict_in_generate",
)  # fmt: skip
# Fields that published configs turn off with -1.
_MINUS_ONE = ("top_k", "eos_token_id")
# Values besides the default that change nothing, the usual one first.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "guidance_scale": (1, 1.0),
    "encoder_repetition_penalty": (1, 1.0),
    "encoder_no_repeat_ngram_size": (0,),
    "diversity_penalty": (0, 0.0),
    "penalty_alpha": (0, 0.0),
}
# Arguments of transformers' generate, and what stands for them here.
_ELSEWHERE = {
    "assistant_model": "give Engine(..., strategy='draft_model', drafter=...)",
    "prefix_allowed_tokens_fn": "give logits_processor=PrefixConstrainedLogitsProcessor(...)",
    "input_ids": "it is the prompt, the first argument",
    "inputs": "it is the prompt, the first argument",
    "attention_mask": "give the prompt as {'input_ids': ..., 'attention_mask': ...}",
    "tokenizer": "give it to Engine(..., tokenizer=...)",
    "messages": "they are the prompt, the first argument",
    "stop_token_ids": "give eos_token_id, which may be a list",
    "documents": "give chat_template_kwargs={'documents': ...}",
    "chat_template": "give chat_template_kwargs={'chat_template': ...}",
}


def is_setting(name: str) -> bool:
    """Whether ``generate`` knows the name, honoured or not."""
    return name in ARGUMENTS or name in vars(GenerationConfig())


def plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's own, in lists too."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    return value.tolist() if isinstance(value, (np.generic, np.ndarray, Tensor)) else value


def settings_of(given: Any) -> dict[str, Any]:
    """What the argument ``generation_config`` sets.

    Args:
        given: a GenerationConfig, a mapping with its names, or None.

    Raises:
        UnknownNameError: a name in a mapping that is no GenerationConfig field.
        OptionError: something else.
    """
    if given is None:
        return {}
    if not isinstance(given, (GenerationConfig, Mapping)):
        raise OptionError(
            f"generation_config must be a transformers GenerationConfig, not {type(given).__name__}"
        )
    values = given if isinstance(given, Mapping) else vars(given)
    if isinstance(given, Mapping):
        known = vars(GenerationConfig())
        for name in given:
            if name not in known and not str(name).startswith("_"):
                _refuse_unknown(str(name), "setting of generation_config")
    return {
        str(name): plain(value)
        for name, value in values.items()
        if value is not None and not str(name).startswith("_")
    }


def apply(
    config: GenerationConfig, fields: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> None:
    """Set a call's arguments on the model's generation config and check the result.

    Args:
        fields: arguments of the call, which come first.
        given: what its argument ``generation_config`` sets, which comes second.

    Raises:
        UnknownNameError: an argument that is no GenerationConfig field.
        OptionError: a value that is not allowed, or a field that is not supported.
    """
    given = given or {}
    known = vars(GenerationConfig())
    for name in fields:
        if name not in known or name.startswith("_"):
            _refuse_unknown(name)
    _unset(config)
    own = dict(vars(config))
    for settings in (given, fields):
        for name, value in settings.items():
            if value is not None:
                setattr(config, name, plain(value))
        if settings.get("max_length") is not None and settings.get("max_new_tokens") is None:
            config.max_new_tokens = None
    idle = []
    for name, value in vars(config).items():
        if name in Fields.model_fields or name in HARMLESS or _is_neutral(name, value):
            continue
        if name in fields or (name in known and not name.startswith((*_IRRELEVANT, "_"))):
            raise OptionError(_unsupported(name, value, fields, given))
        if name in given and own.get(name) != value and name != "transformers_version":
            idle.append(name)
    if idle:
        warn(
            f"{', '.join(idle)} of generation_config has no effect here: the text does not depend "
            "on it"
        )
    try:
        Fields(**vars(config))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        allowed = Fields.model_fields[name].description
        message = f"{name}={getattr(config, name)!r}{_origin(name, fields, given)}: it must be "
        raise OptionError(f"{message}{allowed}{_remedy(name, fields, given)}") from error


def _unset(config: GenerationConfig) -> None:
    """Turn to None what a model's own config says for "none": an empty list, or -1 as a top-k and
    as the id of a token that does not exist."""
    for name, value in dict(vars(config)).items():
        if name in _MINUS_ONE:
            value = [v for v in value if v != -1] if isinstance(value, (list, tuple)) else value
            value = None if type(value) is int and value == -1 else value
            setattr(config, name, value)
        if isinstance(value, (list, tuple, dict)) and not value:
            setattr(config, name, None)


def _is_neutral(name: str, value: Any) -> bool:
    neutral = (None, False, *_NEUTRAL.get(name, ()))
    return any(type(value) is type(same) and value == same for same in neutral)


def _refuse_unknown(name: str, kind: str = "argument of generate") -> None:
    if name in ARGUMENTS:
        sessions = " and Session.generate" if name == "streamer" else ""
        raise OptionError(f"{name} is an argument of Engine.generate{sessions} alone")
    known = {*ARGUMENTS, *Fields.model_fields, *HARMLESS}
    raise UnknownNameError(kind, name, known, _ELSEWHERE.get(name, ""))


def _unsupported(name: str, value: Any, fields: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    if name in fields:
        honoured = ", ".join(Fields.model_fields)
        return f"{name}={value!r} is not supported: specdec honours {honoured}"
    return (
        f"{name}={value!r}{_origin(name, fields, given)} is not supported and could change the "
        f"text{_remedy(name, fields, given)}"
    )


def _origin(name: str, fields: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    if fields.get(name) is not None:
        return ""
    return " of generation_config" if name in given else " of the model's own generation_config"


def _remedy(name: str, fields: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    if fields.get(name) is not None:
        return ""
    if name in given:
        return ". Leave it out of generation_config"
    off = "" if name in Fields.model_fields else f"={_NEUTRAL.get(name, (False,))[0]!r}"
    return f". Give {name}{off} in the call, or set engine.generation_config.{name} = None"
