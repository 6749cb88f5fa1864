"""Which fields of transformers' GenerationConfig specdec honours, and what values they may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from transformers import GenerationConfig

from specdec.errors import OptionError, UnknownNameError

_Count = Annotated[int, Field(ge=0)]
_Positive = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(gt=0, le=1)]
_Cutoff = Annotated[float, Field(ge=0, lt=1)]
_Ids = list[_Count] | tuple[_Count, ...]


class Fields(BaseModel):
    """The fields that are honoured; descriptions say what is allowed."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    max_length: _Positive | None = Field(None, description="an int, at least 1")
    max_new_tokens: _Positive | None = Field(None, description="an int, at least 1")
    min_length: _Count | None = Field(None, description="an int, at least 0")
    min_new_tokens: _Count | None = Field(None, description="an int, at least 0")
    stop_strings: str | list[str] | tuple[str, ...] | None = Field(
        None, description="a string or a list of them"
    )
    eos_token_id: _Count | _Ids | None = Field(None, description="a token id or a list of them")
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
    bad_words_ids: Annotated[list[list[_Count]], Field(min_length=1)] | None = Field(
        None, description="a list of lists of token ids, at least one"
    )
    sequence_bias: Any = Field(None, description="what transformers takes")
    suppress_tokens: _Ids | None = Field(None, description="a list of token ids")
    begin_suppress_tokens: _Ids | None = Field(None, description="a list of token ids")
    remove_invalid_values: bool | None = Field(None, description="True or False")

    @field_validator("temperature")
    @classmethod
    def _no_overflow(cls, value: float | None) -> float | None:
        if value is not None and 0 < value < 1e-6:
            raise ValueError("logits divided by it would overflow")
        return value


SAMPLING = (
    "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip

# Settings without effect on the text: rows are never padded, and there is always a cache.
_HARMLESS = ("pad_token_id", "bos_token_id", "use_cache")
# Settings of a model's config that are no part of the law: where transformers' cache lives,
# provenance, its own assisted generation. In a call they are refused.
_IRRELEVANT = (
    "decoder_start_token_id", "cache_", "max_cache_len", "compile_config", "disable_compile",
    "transformers_version", "_from_model_config", "_commit_hash", "prefill_chunk_size",
    "low_memory", "early_stopping", "length_penalty", "is_assistant", "assistant_",
    "num_assistant_tokens", "target_lookbehind", "max_matching_ngram_size", "prompt_lookup",
    "use_mtp",
)  # fmt: skip
# Values besides the default that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "guidance_scale": (1, 1.0),
    "encoder_repetition_penalty": (1, 1.0),
    "encoder_no_repeat_ngram_size": (0,),
    "diversity_penalty": (0, 0.0),
    "penalty_alpha": (0, 0.0),
}


def apply(config: GenerationConfig, fields: Mapping[str, Any]) -> None:
    """Set a call's arguments on a generation config and check the result.

    Raises:
        UnknownNameError: an argument that is no GenerationConfig field.
        OptionError: a value that is not allowed, or a field that is not supported.
    """
    for name, value in fields.items():
        if name not in vars(config) or name.startswith("_"):
            raise UnknownNameError("argument of generate", name, Fields.model_fields)
        if value is not None:
            setattr(config, name, value)
    if fields.get("max_length") is not None and fields.get("max_new_tokens") is None:
        config.max_new_tokens = None
    _refuse_unsupported(config, fields)
    try:
        Fields(**vars(config))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        allowed = Fields.model_fields[name].description
        raise OptionError(f"{name}={getattr(config, name)!r}: it must be {allowed}") from error


def _refuse_unsupported(config: GenerationConfig, fields: Mapping[str, Any]) -> None:
    defaults = vars(GenerationConfig())
    for name, value in vars(config).items():
        if name in Fields.model_fields or name in _HARMLESS or value is None:
            continue
        if name not in fields and name.startswith(_IRRELEVANT):
            continue
        neutral = (defaults.get(name), False, *_NEUTRAL.get(name, ()))
        if not any(type(value) is type(same) and value == same for same in neutral):
            raise OptionError(
                f"{name}={value!r} is not supported: specdec honours "
                f"{', '.join(Fields.model_fields)}"
            )
