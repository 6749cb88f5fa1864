"""Hydra++'s prefix layer: a decoder layer over the target's last hidden states."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from specdec.errors import CheckpointError, first_line
from specdec.models.checkpoint_weights import listed
from specdec.models.heads.fields import Size
from specdec.models.hf_target import HFTarget
from specdec.models.rotary import LLAMA_CACHE, RotaryEmbedding


class PrefixSizes(BaseModel):
    """Sizes of the layer; where a checkpoint does not say them they are the target's own.

    A value of which no layer can be made is refused by its field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    head_dim: int = Field(ge=2, le=4096, multiple_of=2)
    rms_norm_eps: float = Field(default=1e-6, gt=0, allow_inf_nan=False)
    hidden_act: str = "silu"
    attention_bias: bool = False
    max_position_embeddings: int = Field(default=2048, ge=1, le=2**40)
    rope_parameters: dict[str, Any] = Field(
        default_factory=lambda: {"rope_type": "default", "rope_theta": 10000.0}
    )

    @field_validator("num_attention_heads")
    @classmethod
    def _divides_the_hidden_size(cls, heads: int, info: ValidationInfo) -> int:
        size = info.data.get("hidden_size", heads)
        if size % heads:
            raise ValueError(f"a Llama layer of hidden_size {size} needs a divisor of it")
        return heads

    @field_validator("num_key_value_heads")
    @classmethod
    def _divides_the_heads(cls, heads: int, info: ValidationInfo) -> int:
        queries = info.data.get("num_attention_heads", heads)
        if queries % heads:
            raise ValueError(f"num_attention_heads is {queries}, and it must be a divisor of that")
        return heads

    @field_validator("hidden_act")
    @classmethod
    def _is_an_activation(cls, name: str) -> str:
        if name not in ACT2FN:
            raise ValueError(f"transformers has {listed(sorted(ACT2FN))}")
        return name

    @field_validator("rope_parameters")
    @classmethod
    def _give_frequencies(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind, known = given.get("rope_type", "default"), {"default", *ROPE_INIT_FUNCTIONS}
        if not isinstance(kind, str) or kind not in known:
            raise ValueError(f"rope_type must be one of {', '.join(sorted(known))}")
        if not cls.model_fields.keys() - {"rope_parameters"} <= info.data.keys():
            return given  # a field before it is refused
        config = cls.model_construct(**info.data, rope_parameters=given)
        try:
            with torch.device("cpu"):
                frequencies = LlamaRotaryEmbedding(config.config()).inv_freq
        except Exception as error:
            raise ValueError(f"transformers refuses them: {first_line(error)}") from error
        due = info.data["head_dim"] // 2
        if len(frequencies) != due or not frequencies.isfinite().all():
            raise ValueError(f"they must give {due} finite frequencies, one for two channels")
        return given

    def config(self) -> LlamaConfig:
        """Of one decoder layer."""
        made = LlamaConfig(**self.model_dump(), num_hidden_layers=1)
        made._attn_implementation = "sdpa"
        return made


def sizes_of(target: HFTarget) -> PrefixSizes:
    """Those of a layer of the target, which the published layout takes for granted.

    Raises:
        CheckpointError: a target whose config does not say them as a Llama's does.
    """
    config, fields = target.config, PrefixSizes.model_fields
    given = {name: getattr(config, name, None) for name in fields}
    heads = given["num_attention_heads"]
    if isinstance(heads, int) and heads:
        given["head_dim"] = given["head_dim"] or target.hidden_size // heads
        given["num_key_value_heads"] = given["num_key_value_heads"] or heads
    try:
        return PrefixSizes(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            "its prefix layer is one like the target's, and the config of a "
            f"{type(target.model).__name__} does not say the sizes of a Llama layer "
            f"({first['loc'][0]}: {first['msg'].removeprefix('Value error, ')})"
        ) from error


class PrefixLayer(nn.Module):
    """A Llama decoder layer and its final norm: every hidden state sees those before it.

    Source: Hydra++ (arXiv 2402.05109), section 5, "PrefixAttention".
    """

    def __init__(self, sizes: PrefixSizes) -> None:
        super().__init__()
        self.sizes, self.config = sizes, sizes.config()
        self.layers = nn.ModuleList([LlamaDecoderLayer(self.config, layer_idx=0)])
        self.norm = LlamaRMSNorm(sizes.hidden_size, eps=sizes.rms_norm_eps)
        with torch.device("cpu"):  # also where the rest is on meta: no checkpoint holds them
            self.rotary_emb = RotaryEmbedding(self.config)

    def forward(
        self,
        hidden: Tensor,  # [B, n, H]
        positions: Tensor,  # [B, n] int64
        mask: Tensor | None,  # [B, 1, n, S], bool (True: attend) or additive; None: causal
        cache: Cache | None = None,
    ) -> Tensor:
        """``[B, n, H]``."""
        rotary = self.rotary_emb(hidden, positions)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_ids=positions,
                **{LLAMA_CACHE: cache},
                position_embeddings=rotary,
            )
        normed: Tensor = self.norm(hidden)
        return normed
