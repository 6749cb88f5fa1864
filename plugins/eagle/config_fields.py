"""The fields of a head's ``config.json`` that are read, and the types and ranges that they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from transformers.activations import ACT2FN

from specdec.errors import CheckpointError


class HeadFields(BaseModel):
    """Those of the head; null is the same as not there."""

    model_config = ConfigDict(frozen=True, strict=True)

    architectures: list[str] | None = None
    speculators_model_type: str | None = None
    draft_vocab_size: PositiveInt | None = None
    target_hidden_size: PositiveInt | None = None
    num_aux_hidden_states: PositiveInt | None = None
    tie_word_embeddings: bool | None = None
    bias: bool | None = None
    qkv_bias: bool | None = None
    fusion_bias: bool | None = None
    eagle_config: dict[str, Any] | None = None


class DecoderFields(BaseModel):
    """Those of its decoder layers, which most layouts have beside the others.

    What the published configs leave out means the default here, never the target's value.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_attention_heads: PositiveInt
    vocab_size: PositiveInt
    num_key_value_heads: PositiveInt | None = None
    head_dim: int | None = Field(None, ge=2, multiple_of=2)
    num_hidden_layers: int = Field(1, ge=1, le=256)
    rms_norm_eps: PositiveFloat = 1e-6
    hidden_act: str = "silu"
    max_position_embeddings: PositiveInt = 2048
    model_type: str | None = None
    intermediate_size_mlp: PositiveInt | None = None
    attention_bias: bool | None = None
    qkv_bias: bool | None = None
    mlp_bias: bool | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    use_sliding_window: bool | None = None

    @field_validator("hidden_act")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ACT2FN:
            raise ValueError("transformers has no activation of that name")
        return name

    @model_validator(mode="after")
    def _heads(self) -> DecoderFields:
        heads, shared = self.num_attention_heads, self.num_key_value_heads
        if shared and heads % shared:
            raise ValueError(
                f"num_attention_heads={heads} is no multiple of num_key_value_heads={shared}"
            )
        if self.head_dim is None and (self.hidden_size // heads < 2 or self.width % 2):
            raise ValueError(
                f"num_attention_heads={heads} does not go with hidden_size={self.hidden_size}: "
                "channels of an attention head are even in number"
            )
        return self

    @property
    def width(self) -> int:
        """Channels of an attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


def check_agreement(said: Mapping[str, Any]) -> None:
    """Refuse entries that say one thing, and differently; None is as if it were left out.

    Args:
        said: values by the entries' names.

    Raises:
        CheckpointError: with names and values.
    """
    given = {name: value for name, value in said.items() if value is not None}
    first = next(iter(given.values()), None)
    if any(value != first for value in given.values()):
        told = ", ".join(f"{name}={value}" for name, value in given.items())
        raise CheckpointError(f"config.json contradicts itself: {told}; take the wrong one out")
