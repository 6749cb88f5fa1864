"""Medusa's draft heads as a network: residual blocks on the target's last hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from specdec.models.heads.depth_heads import DepthHeads, HeadSizes


@dataclass(frozen=True)
class MedusaSizes(HeadSizes):
    """What a set of Medusa heads is made of.

    Attributes:
        bias: whether the residual blocks have biases.
    """

    bias: bool = True


class ResidualBlocks(nn.Module):
    """``x + silu(layer(x))``, layer by layer."""

    def __init__(self, size: int, layers: int, bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, size, bias=bias) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + silu(layer(x))
        return x


class MedusaHeads(DepthHeads):
    """K heads, each of which predicts a token further ahead from one hidden state.

    From the target's last hidden state at token t, whose lm_head gives token t + 1, the head of
    index i gives the distribution of token t + 2 + i: whatever stands between, so that all nodes of
    a level share it.

    Parameter names are those of vLLM's checkpoints.

    Source: Cai et al. 2024, Medusa (arXiv 2401.10774), section 2.1.1.
    """

    def __init__(self, sizes: MedusaSizes, vocabulary: Tensor | None = None) -> None:
        super().__init__(sizes, vocabulary)
        self.blocks = nn.ModuleList(
            ResidualBlocks(sizes.hidden_size, sizes.layers, sizes.bias) for _ in range(sizes.heads)
        )
        self.lm_heads = nn.ModuleList(
            nn.Linear(sizes.hidden_size, sizes.draft_vocab_size, bias=False)
            for _ in range(sizes.projections)
        )

    @property
    def projections(self) -> nn.ModuleList:
        return self.lm_heads

    def forward(self, hidden: Tensor) -> Tensor:
        """What each head's projection reads, ``[K, ..., H]`` of ``hidden [..., H]``."""
        return torch.stack([block(hidden) for block in self.blocks])
