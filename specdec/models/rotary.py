"""Rotary position embeddings of heads' Llama layers, whose frequencies keep their precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from specdec.kv_cache.keyword import cache_keyword

LLAMA_CACHE = cache_keyword(LlamaDecoderLayer)
"""The argument of a Llama layer that is its cache."""


class RotaryEmbedding(LlamaRotaryEmbedding):  # type: ignore[misc]
    """transformers' rotary embedding, its frequencies in float32 whatever the head is cast to: at
    position 2000 the angles that bfloat16 frequencies give are wrong."""

    inv_freq: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        fresh = LlamaRotaryEmbedding(self.config).to(self.inv_freq.device)
        self.inv_freq, self.original_inv_freq = fresh.inv_freq, fresh.original_inv_freq
        return self
