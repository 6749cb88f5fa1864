"""Hydra's draft heads as a network: each reads the draft tokens before its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from specdec_plugins.hydra.prefix_layer import PrefixLayer, PrefixSizes

Projection = Literal["own", "shared", "target"]


@dataclass(frozen=True)
class HeadSizes:
    """What a set of heads is made of.

    Attributes:
        hidden_size, vocab_size: of the target.
        heads: how many, K; the one of index i drafts at depth i + 1.
        layers: residual blocks of each head, at least one: the first reads all that is known.
        projection: what gives logits: ``own``, a projection for each head; ``shared``, one for all
            of them; ``target``, the target's lm_head, of which nothing is kept with the heads.
        draft_vocab_size: tokens C that are drafted; ``vocab_size`` for all.
        prefix: of the prefix layer of Hydra++; None without.
    """

    hidden_size: int
    vocab_size: int
    heads: int
    layers: int
    projection: Projection
    draft_vocab_size: int
    prefix: PrefixSizes | None = None

    @property
    def projections(self) -> int:
        """How many projections the heads bring."""
        return {"own": self.heads, "shared": 1, "target": 0}[self.projection]


class Block(nn.Module):
    """``x + silu(linear(x))``; of several vectors side by side ``res_connection(x)`` for x."""

    def __init__(self, size: int, vectors: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(vectors * size, size)
        self.res_connection = nn.Linear(vectors * size, size) if vectors > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = self.res_connection(x)
        return kept + silu(self.linear(x))


class HydraHeads(nn.Module):
    """K heads, of which each reads one hidden state and the embeddings of the tokens after it.

    From the target's last hidden state at token t the head of index i reads the root, token t + 1,
    and the i draft tokens below it, and gives the distribution of token t + 2 + i. With a prefix
    layer (Hydra++) it reads that layer's output at t in place of the hidden state.

    Parameter names are those of the authors' checkpoints without a prefix layer.

    Attributes:
        sizes: what it is made of.
        vocabulary: ``[C]`` int64, ascending, the tokens that are drafted; None for all.

    Source: Ankner et al. 2024, Hydra (arXiv 2402.05109), sections 3 and 5.
    """

    def __init__(self, sizes: HeadSizes, vocabulary: Tensor | None = None) -> None:
        super().__init__()
        self.sizes, self.vocabulary = sizes, vocabulary
        size, later = sizes.hidden_size, range(sizes.layers - 1)
        self.prefix_embeding_layer = PrefixLayer(sizes.prefix) if sizes.prefix else None
        self.hydra_mlp = nn.ModuleList(
            nn.Sequential(Block(size, head + 2), *(Block(size) for _ in later))
            for head in range(sizes.heads)
        )
        self.hydra_lm_head = nn.ModuleList(
            nn.Linear(size, sizes.draft_vocab_size) for _ in range(sizes.projections)
        )

    def forward(self, hidden: Tensor, embeddings: Tensor, head: int) -> Tensor:
        """What the projection of one head reads.

        Args:
            hidden: ``[..., H]``, of the token before the root, through the prefix layer if there is
                one.
            embeddings: ``[..., head + 1, H]``, of the root and the draft tokens below it.

        Returns:
            ``[..., H]``.
        """
        read = torch.cat([hidden, embeddings.flatten(-2)], dim=-1)
        output: Tensor = self.hydra_mlp[head](read)
        return output
