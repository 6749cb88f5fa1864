"""The trainer of Hydra heads: its options and its recipe."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from specdec.training.batch import Batch
from specdec.training.depth_options import DepthTraining
from specdec.training.depth_recipe import DepthRecipe
from specdec_plugins.hydra.checkpoint import HEADS
from specdec_plugins.hydra.heads import HydraSizes
from specdec_plugins.hydra.prefix_layer import PrefixLayer, sizes_of


class HydraTraining(DepthTraining):
    """Options of the trainer ``hydra``."""

    prefix: bool = Field(
        False, description="Hydra++: a decoder layer over the hidden states before the heads"
    )


class HydraRecipe(DepthRecipe):
    """Heads on a frozen target that read the tokens of the text as draft tokens, and begin as the
    hidden state that they read.

    Raises:
        CheckpointError: a prefix layer for a target whose layers are no Llama's.

    Source: Hydra (arXiv 2402.05109), sections 3 and 5.
    """

    strategy = "hydra"
    kind = HEADS
    options: HydraTraining

    def new_sizes(self, **common: Any) -> HydraSizes:
        return HydraSizes(**common, prefix=sizes_of(self.target) if self.options.prefix else None)

    def begin(self, network: Any) -> None:
        size = self.sizes.hidden_size
        for parameter in network.hydra_mlp.parameters():
            nn.init.zeros_(parameter)
        for mlp in network.hydra_mlp:
            mlp[0].res_connection.weight[:, :size] = torch.eye(size)
        if network.prefix_embeding_layer is not None:
            self._quieten(network.prefix_embeding_layer)

    def _quieten(self, prefix: PrefixLayer) -> None:
        """Let a new prefix layer begin as nearly the identity."""
        for name in ("0.self_attn.o_proj", "0.mlp.down_proj"):
            nn.init.zeros_(prefix.layers.get_submodule(name).get_parameter("weight"))
        final: Any = getattr(self.target.model.base_model, "norm", None)
        weight = getattr(final, "weight", None)
        if isinstance(weight, Tensor):  # the size of a hidden state, which the layer's norm sets
            prefix.norm.weight.fill_(float(weight.float().square().mean().sqrt()))

    def outputs(self, network: Any, batch: Batch) -> Tensor:
        hidden = batch.hidden.last.float()
        if network.prefix_embeding_layer is not None:
            hidden = network.prefix_embeding_layer(hidden, batch.positions, batch.causal())
        with torch.no_grad():
            embedded = self.target.embed(batch.tokens).float()
        found = []
        for depth in range(self.heads):
            path = torch.stack([embedded.roll(back, 1) for back in range(depth, -1, -1)], dim=-2)
            found.append(network(hidden.roll(depth + 1, 1), path, depth))
        return torch.stack(found)
