"""Hydra's draft heads as a network: each reads the draft tokens before its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from specdec.errors import CheckpointError
from specdec.models.heads.depth_heads import DepthHeads, HeadSizes
from specdec.models.hf_target import HFTarget
from specdec_plugins.hydra.prefix_layer import PrefixLayer, PrefixSizes, sizes_of


@dataclass(frozen=True)
class HydraSizes(HeadSizes):
    """What a set of Hydra heads is made of; each has at least one block, which reads all.

    Attributes:
        prefix: of the prefix layer of Hydra++; None without, or where only a target says it.
    """

    prefix: PrefixSizes | None = None

    def for_target(self, target: HFTarget) -> HydraSizes:
        """The same, with the prefix layer's sizes.

        Raises:
            CheckpointError: heads of another target, or whose embeddings have another width; a
                prefix layer like the target's, whose layers are no Llama's.
        """
        super().for_target(target)
        token = torch.zeros(1, dtype=torch.int64, device=target.device)
        if (width := target.embed(token).shape[-1]) != self.hidden_size:
            raise CheckpointError(
                f"they read embeddings of {self.hidden_size} channels, the target's have {width}"
            )
        return replace(self, missing="", prefix=sizes_of(target)) if self.missing else self


class Block(nn.Module):
    """``x + silu(linear(x))``; of several vectors side by side ``res_connection(x)`` for x."""

    def __init__(self, size: int, vectors: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(vectors * size, size)
        self.res_connection = nn.Linear(vectors * size, size) if vectors > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = self.res_connection(x)
        return kept + silu(self.linear(x))


class HydraHeads(DepthHeads):
    """K heads, of which each reads one hidden state and the embeddings of the tokens after it.

    From the target's last hidden state at token t the head of index i reads the root, token t + 1,
    and the i draft tokens below it, and gives the distribution of token t + 2 + i. With a prefix
    layer (Hydra++) it reads that layer's output at t in place of the hidden state.

    Parameter names are those of the authors' checkpoints without a prefix layer.

    Source: Ankner et al. 2024, Hydra (arXiv 2402.05109), sections 3 and 5.
    """

    def __init__(self, sizes: HydraSizes, vocabulary: Tensor | None = None) -> None:
        super().__init__(sizes, vocabulary)
        size, later = sizes.hidden_size, range(sizes.layers - 1)
        self.prefix_embeding_layer = PrefixLayer(sizes.prefix) if sizes.prefix else None
        self.hydra_mlp = nn.ModuleList(
            nn.Sequential(Block(size, head + 2), *(Block(size) for _ in later))
            for head in range(sizes.heads)
        )
        self.hydra_lm_head = nn.ModuleList(
            nn.Linear(size, sizes.draft_vocab_size) for _ in range(sizes.projections)
        )

    @property
    def projections(self) -> nn.ModuleList:
        return self.hydra_lm_head

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
