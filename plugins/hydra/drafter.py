"""Hydra heads as drafter: each level reads the path that it hangs from."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.drafting.heads_drafter import HeadsDrafter, HeadsOptions
from specdec.kv_cache.cache_layers import LayerShape
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.attention_mask import MaskForm
from specdec.models.hf_target import HFTarget
from specdec_plugins.hydra.heads import HydraHeads


class HydraOptions(HeadsOptions):
    """Options of the drafter ``hydra``."""

    checkpoint: str | HydraHeads | None = Field(
        None,
        description="folder or hub id of Hydra or Hydra++ heads trained for the target model, or "
        "loaded ones",
    )


class HydraDrafter(HeadsDrafter):
    """Drafts token t + 2 + d at depth d of the tree from the hidden state at token t, the one
    before the root, and the embeddings of the root and the d draft tokens on the node's path.

    With a prefix layer committed hidden states are read through it, into a cache of its own; draft
    tokens never are.

    Source: Hydra (arXiv 2402.05109), sections 3 and 5.
    """

    def __init__(self, heads: HydraHeads, options: HydraOptions, target: HFTarget) -> None:
        super().__init__(heads, options, target)
        self._mlps = [target.accelerated(mlp) for mlp in heads.hydra_mlp]
        self._prefix = heads.prefix_embeding_layer
        if self._prefix is not None:
            self._masks = MaskForm.of(self._prefix.config)
            self._prefix_network = target.accelerated(self._prefix)

    def cache_layers(self) -> list[LayerShape]:
        if self._prefix is None:
            return []
        sizes = self._prefix.sizes
        return [LayerShape(sizes.num_key_value_heads, sizes.head_dim, sizes.head_dim)]

    def read(self, hidden: Tensor, positions: Tensor, visible: Tensor, cache: KVCache) -> Tensor:
        if self._prefix is None:
            return hidden
        mask = self._masks.build(visible, positions, positions, self.dtype)
        output: Tensor = self._prefix_network(hidden, positions, mask, cache=cache)
        return output

    def prefill(self, tokens: Tensor, features: Tensor | None, cache: KVCache) -> Tensor:
        if self._prefix is None:
            return super().prefill(tokens, features, cache)
        assert features is not None
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        cache.reserve_prefix(tokens.shape[1])
        mask = self._masks.causal(positions, self.dtype)
        output: Tensor = self._prefix_network(features.to(self.dtype), positions, mask, cache=cache)
        return output

    def outputs_at(self, read: Tensor, frontier: Frontier) -> Tensor:
        embeddings = self.target.embed(frontier.paths).to(self.dtype)
        known = torch.cat([read.expand(-1, frontier.width, -1), embeddings.flatten(-2)], dim=-1)
        output: Tensor = self._mlps[frontier.depth](known)
        return output
