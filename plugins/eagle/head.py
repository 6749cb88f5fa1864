"""The EAGLE-1/2 draft head as a network: a fusion layer and transformers' Llama decoder layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from specdec.models.rotary import LLAMA_CACHE, RotaryEmbedding
from specdec_plugins.eagle.named_target import NamedTarget


class EagleHead(nn.Module):
    """Predicts the target's next feature from (feature, next token) pairs.

    ``x = fc([embedding, feature])``, then Llama decoder layers of which the first has no input
    norm; there is no final norm and no lm_head, the target's is applied to the output.

    Parameter names are those of the published checkpoints.

    Args:
        config: sizes, activation, eps and rope of the decoder layers.
        fc_bias: whether ``fc`` has a bias.
        own_embedding: whether the head brings an ``embed_tokens`` that replaces the target's.

    Source: Li et al. 2024, EAGLE (arXiv 2401.15077), section 3; EAGLE-2 keeps the same head.
    """

    aux_layers: tuple[int, ...] = ()
    made_for: NamedTarget | None = None  # what its checkpoint names as its target

    def __init__(self, config: LlamaConfig, fc_bias: bool, own_embedding: bool = False) -> None:
        super().__init__()
        config._attn_implementation = "sdpa"
        self.config = config
        self.embed_tokens = (
            nn.Embedding(config.vocab_size, config.hidden_size) if own_embedding else None
        )
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=fc_bias)
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(config, layer_idx=i) for i in range(config.num_hidden_layers)
        )
        self.layers[0].input_layernorm = nn.Identity()
        for layer in self.layers:
            # ``qkv_bias`` means those three; transformers' attention_bias adds one to o_proj.
            layer.get_submodule("self_attn.o_proj").register_parameter("bias", None)
        self.rotary_emb = RotaryEmbedding(config)

    def forward(
        self,
        embeddings: Tensor,  # [B, n, H], of the tokens that follow the features
        features: Tensor,  # [B, n, H], the target's last hidden states, or this head's own outputs
        positions: Tensor,  # [B, n] int64
        mask: Tensor | None,  # [B, 1, n, S], bool (True: attend) or additive; None: causal
        cache: Cache | None = None,
    ) -> Tensor:
        """Predicted features, ``[B, n, H]`` in the dtype of the inputs."""
        x: Tensor = self.fc(torch.cat([embeddings, features], dim=-1))
        rotary = self.rotary_emb(x, positions)
        for layer in self.layers:
            x = layer(
                x,
                attention_mask=mask,
                position_ids=positions,
                **{LLAMA_CACHE: cache},
                position_embeddings=rotary,
            )
        return x
