"""Medusa's draft heads as a network: residual blocks on the target's last hidden state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

Projection = Literal["own", "shared", "target"]


@dataclass(frozen=True)
class HeadSizes:
    """What a set of heads is made of.

    Attributes:
        hidden_size, vocab_size: of the target.
        heads: how many, K; the one of index i drafts at depth i + 1.
        layers: residual blocks of each head.
        bias: whether these have biases.
        projection: what gives logits: ``own``, a projection for each head; ``shared``, one for all
            of them; ``target``, the target's lm_head, of which nothing is kept with the heads.
        draft_vocab_size: tokens C that are drafted; ``vocab_size`` for all.
    """

    hidden_size: int
    vocab_size: int
    heads: int
    layers: int
    bias: bool
    projection: Projection
    draft_vocab_size: int

    @property
    def projections(self) -> int:
        """How many projections the heads bring."""
        return {"own": self.heads, "shared": 1, "target": 0}[self.projection]


class ResidualBlocks(nn.Module):
    """``x + silu(layer(x))``, layer by layer."""

    def __init__(self, size: int, layers: int, bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, size, bias=bias) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + silu(layer(x))
        return x


class MedusaHeads(nn.Module):
    """K heads, each of which predicts a token further ahead from one hidden state.

    From the target's last hidden state at token t, whose lm_head gives token t + 1, the head of
    index i gives the distribution of token t + 2 + i: whatever stands between, so that all nodes of
    a level share it.

    Parameter names are those of vLLM's checkpoints.

    Attributes:
        sizes: what it is made of.
        vocabulary: ``[C]`` int64, ascending, the tokens that are drafted; None for all.

    Source: Cai et al. 2024, Medusa (arXiv 2401.10774), section 2.1.1.
    """

    def __init__(self, sizes: HeadSizes, vocabulary: Tensor | None = None) -> None:
        super().__init__()
        self.sizes, self.vocabulary = sizes, vocabulary
        self.blocks = nn.ModuleList(
            ResidualBlocks(sizes.hidden_size, sizes.layers, sizes.bias) for _ in range(sizes.heads)
        )
        self.lm_heads = nn.ModuleList(
            nn.Linear(sizes.hidden_size, sizes.draft_vocab_size, bias=False)
            for _ in range(sizes.projections)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """What each head's projection reads, ``[K, ..., H]`` of ``hidden [..., H]``."""
        return torch.stack([block(hidden) for block in self.blocks])
