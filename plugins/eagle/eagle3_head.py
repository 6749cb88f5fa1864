"""The EAGLE-3 draft head as a network, on transformers' Llama or Qwen3 decoder layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, Qwen3Config
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from specdec.models.hidden_states import HiddenStates
from specdec.models.rotary import LLAMA_CACHE, RotaryEmbedding
from specdec_plugins.eagle.named_target import NamedTarget

# Tensor [B, 1, n, S], bool (True: attend) or additive, or one for each type of layer.
Mask = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Eagle3Wiring:
    """How an EAGLE-3 head is put together, beyond the config of its decoder layers.

    Attributes:
        aux_layers: the target's layers whose hidden states it reads, as transformers counts
            ``hidden_states`` (0 is the embedding); empty for a head that reads the features, the
            input of the target's lm_head.
        target_hidden_size: channels H of one such state.
        draft_vocab_size: rows D of its lm_head.
        own_embedding: whether it brings an ``embed_tokens`` that replaces the target's.
        fc: whether the states go through ``fc``; without it there is one, of the head's own width.
        norm_before_fc: one norm over all states side by side.
        fc_norm: a norm for each state.
        norm_before_residual: whether the first layer adds to the normed state rather than to the
            state itself.
        norm_output: whether what is fed back has gone through the final norm.
        final_norm: whether there is a norm before the lm_head.
        unused_norm: whether that norm is there and not applied.
        biases: the linear layers that have a bias: ``fc``, ``lm_head``, ``q_proj`` and so on.
    """

    aux_layers: tuple[int, ...]
    target_hidden_size: int
    draft_vocab_size: int
    own_embedding: bool = False
    fc: bool = True
    norm_before_fc: bool = False
    fc_norm: bool = False
    norm_before_residual: bool = False
    norm_output: bool = False
    final_norm: bool = True
    unused_norm: bool = False
    biases: frozenset[str] = frozenset()

    @property
    def states(self) -> int:
        """How many hidden states of a token it reads."""
        return max(1, len(self.aux_layers))


class Eagle3Head(nn.Module):
    """Predicts the target's next tokens from hidden states of several of its layers.

    ``g = fc(states)`` for committed tokens and ``g = `` the head's own output for draft tokens;
    ``x = g + attention([norm(embedding), norm(g)])``, ``x = x + mlp(norm(x))``, further decoder
    layers, ``logits = lm_head(norm(x))`` over the draft vocabulary.

    Args:
        config: sizes, activation, eps, rope and windows of the decoder layers; ``vocab_size`` is
            the target's. A Qwen3Config gives norms of queries and keys.
        wiring: the rest.

    Attributes:
        vocabulary: ``[D]`` int64, the target's tokens that the rows of the lm_head stand for,
            ascending; all of them in their order where D is the target's vocabulary.

    Source: Li et al. 2025, EAGLE-3 (arXiv 2503.01840), section 3.
    """

    vocabulary: Tensor
    made_for: NamedTarget | None = None  # what its checkpoint names as its target

    def __init__(self, config: LlamaConfig | Qwen3Config, wiring: Eagle3Wiring) -> None:
        super().__init__()
        config._attn_implementation = "sdpa"
        self.config, self.wiring = config, wiring
        hidden = config.hidden_size
        self.embed_tokens = (
            nn.Embedding(config.vocab_size, hidden) if wiring.own_embedding else None
        )
        self.fusion = Fusion(config, wiring)
        self.decoder = Eagle3Decoder(config, wiring)
        bias = "lm_head" in wiring.biases
        self.lm_head = nn.Linear(hidden, wiring.draft_vocab_size, bias=bias)
        self.register_buffer("vocabulary", torch.arange(wiring.draft_vocab_size), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self.lm_head.weight.dtype

    @property
    def aux_layers(self) -> tuple[int, ...]:
        """The target's layers whose hidden states it reads."""
        return self.wiring.aux_layers

    def features(self, hidden: HiddenStates) -> Tensor:
        """What is read with committed tokens: the states side by side, ``[B, n, A * H]``."""
        return torch.cat(hidden.aux, dim=-1) if self.aux_layers else hidden.last

    def fuse(self, features: Tensor) -> Tensor:
        """``[B, n, A * H]`` to ``[B, n, h]``."""
        fused: Tensor = self.fusion(features)
        return fused

    def forward(
        self,
        embeddings: Tensor,  # [B, n, h], of the tokens that follow the features
        features: Tensor,  # [B, n, h], fused states, or this head's own outputs
        positions: Tensor,  # [B, n] int64
        mask: Mask | None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Outputs ``[B, n, h]``, which may be fed back as features."""
        outputs: Tensor = self.decoder(embeddings, features, positions, mask, cache=cache)
        return outputs

    def logits(self, outputs: Tensor) -> Tensor:
        """Draft logits ``[B, n, D]`` of ``outputs [B, n, h]``."""
        scored: Tensor = self.lm_head(self.normed(outputs))
        return scored

    def normed(self, outputs: Tensor) -> Tensor:
        """Outputs as the lm_head reads them: ``[B, n, h]``."""
        norm, wiring = self.decoder.norm, self.wiring
        if norm is None or wiring.norm_output or not wiring.final_norm:
            return outputs
        normed: Tensor = norm(outputs)
        return normed


class Fusion(nn.Module):
    """The hidden states of a token as one vector of the head's width."""

    def __init__(self, config: LlamaConfig | Qwen3Config, wiring: Eagle3Wiring) -> None:
        super().__init__()
        width, eps = wiring.target_hidden_size, config.rms_norm_eps
        together = wiring.states * width
        self.states = wiring.states
        self.input_norm = LlamaRMSNorm(together, eps) if wiring.norm_before_fc else None
        self.fc_norm = (
            nn.ModuleList(LlamaRMSNorm(width, eps) for _ in range(wiring.states))
            if wiring.fc_norm
            else None
        )
        bias = "fc" in wiring.biases
        self.fc = nn.Linear(together, config.hidden_size, bias=bias) if wiring.fc else None

    def forward(self, features: Tensor) -> Tensor:
        """``[B, n, A * H]`` to ``[B, n, h]``."""
        if self.input_norm is not None:
            features = self.input_norm(features)
        if self.fc_norm is not None:
            states = features.chunk(self.states, dim=-1)
            normed = [norm(state) for norm, state in zip(self.fc_norm, states, strict=True)]
            features = torch.cat(normed, dim=-1)
        return features if self.fc is None else self.fc(features)


class Eagle3Decoder(nn.Module):
    """The decoder layers and the final norm."""

    def __init__(self, config: LlamaConfig | Qwen3Config, wiring: Eagle3Wiring) -> None:
        super().__init__()
        self.layers = nn.ModuleList([FirstLayer(config, wiring.norm_before_residual)])
        for index in range(1, config.num_hidden_layers):
            self.layers.append(_decoder_layer(config, index))
        for layer in self.layers:
            for part in ("self_attn", "mlp"):
                _set_biases(layer.get_submodule(part), wiring.biases)
        self.norm = (
            LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
            if wiring.final_norm or wiring.unused_norm
            else None
        )
        self.norm_output = wiring.norm_output
        self.rotary_emb = RotaryEmbedding(config)
        self._types = list(getattr(config, "layer_types", None) or [])

    def forward(
        self,
        embeddings: Tensor,
        features: Tensor,
        positions: Tensor,
        mask: Mask | None,
        cache: Cache | None = None,
    ) -> Tensor:
        """As :meth:`Eagle3Head.forward`."""
        x = features
        rotary = self.rotary_emb(x, positions)
        for index, layer in enumerate(self.layers):
            own = mask[self._types[index]] if isinstance(mask, Mapping) else mask
            given = {"attention_mask": own, LLAMA_CACHE: cache, "position_embeddings": rotary}
            x = layer(embeddings, x, **given) if index == 0 else layer(x, **given)
        return self.norm(x) if self.norm_output and self.norm is not None else x


class FirstLayer(nn.Module):
    """A decoder layer whose attention reads the embedding beside the feature, both normed."""

    def __init__(self, config: LlamaConfig | Qwen3Config, norm_before_residual: bool) -> None:
        super().__init__()
        layer: Any = _decoder_layer(config, 0)
        self.self_attn: nn.Module = layer.self_attn
        self.mlp: nn.Module = layer.mlp
        for name in ("q_proj", "k_proj", "v_proj"):
            narrow = getattr(self.self_attn, name)
            wide = nn.Linear(2 * config.hidden_size, narrow.out_features, bias=False)
            setattr(self.self_attn, name, wide)
        self.input_layernorm: nn.Module = layer.input_layernorm
        self.hidden_norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm: nn.Module = layer.post_attention_layernorm
        self.norm_before_residual = norm_before_residual

    def forward(self, embeddings: Tensor, features: Tensor, **given: Any) -> Tensor:
        """``[B, n, h]`` both, and what transformers gives its decoder layers, to ``[B, n, h]``."""
        normed = self.hidden_norm(features)
        both = torch.cat([self.input_layernorm(embeddings), normed], dim=-1)
        attended, _ = self.self_attn(hidden_states=both, **given)
        x: Tensor = (normed if self.norm_before_residual else features) + attended
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


def _decoder_layer(config: LlamaConfig | Qwen3Config, index: int) -> nn.Module:
    kind = Qwen3DecoderLayer if isinstance(config, Qwen3Config) else LlamaDecoderLayer
    layer: nn.Module = kind(config, layer_idx=index)
    return layer


def _set_biases(module: nn.Module, biases: frozenset[str]) -> None:
    """Give the linear layers named a bias, and the others none."""
    for name, layer in module.named_children():
        if isinstance(layer, nn.Linear):
            bias = nn.Parameter(torch.zeros(layer.out_features)) if name in biases else None
            layer.register_parameter("bias", bias)
