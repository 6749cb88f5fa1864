"""The trainer of Hydra heads: its options and its recipe."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from specdec.errors import OptionError
from specdec.models.hf_target import HFTarget
from specdec.training.batch import Batch
from specdec.training.depth_recipe import DepthRecipe
from specdec.training.documents import Documents
from specdec_plugins.hydra.checkpoint import load_heads
from specdec_plugins.hydra.heads import HeadSizes, HydraHeads, Projection
from specdec_plugins.hydra.prefix_layer import PrefixLayer, sizes_of
from specdec_plugins.hydra.saving import save_heads

_VOCABULARY = 8192


class HydraTraining(BaseModel):
    """Options of the trainer ``hydra``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: int = Field(4, ge=1, le=16, description="heads, so tokens ahead")
    layers: int = Field(1, ge=1, le=8, description="residual blocks of each head")
    prefix: bool = Field(
        False, description="Hydra++: a decoder layer over the hidden states before the heads"
    )
    projection: Projection = Field(
        "target",
        description="what gives logits: target, the target's lm_head as it is, so that nothing of "
        "the vocabulary's size is saved; shared, one for all heads, trained; own, one for each, "
        "trained, as published heads have",
    )
    vocabulary: int | None = Field(
        None,
        ge=2,
        description="how many of the most frequent tokens of the answers are drafted; default: "
        f"{_VOCABULARY}, or all where the target has fewer",
    )
    step_decay: float = Field(0.8, gt=0, le=1, description="weight of each further head")
    start: str | None = Field(None, description="folder or hub id of heads to go on from")


_OF_NEW_HEADS = ("heads", "layers", "prefix", "projection", "vocabulary")


class HydraRecipe(DepthRecipe):
    """Heads on a frozen target that read the tokens of the text as draft tokens.

    Source: Hydra (arXiv 2402.05109), sections 3 and 5. Heads begin as the hidden state that they
    read, projections as the target's lm_head.
    """

    strategy = "hydra"

    def __init__(self, options: HydraTraining, target: HFTarget, documents: Documents) -> None:
        super().__init__(target)
        self.options, self.decay = options, options.step_decay
        self._begun: HydraHeads | None = None
        if options.start is not None:
            if given := [name for name in _OF_NEW_HEADS if name in options.model_fields_set]:
                raise OptionError(
                    f"{given[0]} is that of the heads in start={options.start!r}: leave it out"
                )
            self._begun = load_heads(options.start, target)
            self.vocabulary, self.sizes = self._begun.vocabulary, self._begun.sizes
        else:
            self.sizes = self._new_sizes(documents)
        self.heads = self.sizes.heads

    def _new_sizes(self, documents: Documents) -> HeadSizes:
        """Of new heads; sets the tokens that are drafted."""
        target, options = self.target, self.options
        size = options.vocabulary or _VOCABULARY
        if size < target.vocab_size:
            ids = documents.frequent(size, target.ends)
            self.vocabulary = torch.tensor(ids, device=target.device)
        return HeadSizes(
            target.hidden_size,
            target.vocab_size,
            options.heads,
            options.layers,
            options.projection,
            target.vocab_size if self.vocabulary is None else len(self.vocabulary),
            sizes_of(target) if options.prefix else None,
        )

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {"vocabulary": self.sizes.draft_vocab_size}

    @torch.no_grad()
    def make(self) -> HydraHeads:
        if self._begun is not None:
            return copy.deepcopy(self._begun).float().train()
        made, size = HydraHeads(self.sizes, self.vocabulary), self.sizes.hidden_size
        for parameter in made.hydra_mlp.parameters():
            nn.init.zeros_(parameter)
        for mlp in made.hydra_mlp:
            mlp.get_submodule("0.res_connection").get_parameter("weight")[:, :size] = torch.eye(
                size
            )
        lm_head: Any = self.target.model.get_output_embeddings()
        for projection in made.hydra_lm_head:
            nn.init.zeros_(projection.get_parameter("bias"))
            rows = lm_head.weight.detach()
            rows = rows if self.vocabulary is None else rows[self.vocabulary]
            projection.get_parameter("weight").copy_(rows)
        if made.prefix_embeding_layer is not None:
            self._quieten(made.prefix_embeding_layer)
        return made.to(self.target.device).train()

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

    def score(self, network: Any, outputs: Tensor, depth: int) -> Tensor:
        if self.sizes.projection == "target":
            return self.target_score(outputs)
        own = network.hydra_lm_head
        logits: Tensor = own[min(depth, len(own) - 1)](outputs)
        return logits

    def scoring(self, network: Any) -> Sequence[Tensor]:
        return list(network.hydra_lm_head.parameters())

    def save(self, network: nn.Module, folder: Path) -> None:
        """In bfloat16, in the authors' layout as far as that can say what they are."""
        assert isinstance(network, HydraHeads)
        save_heads(copy.deepcopy(network).to(torch.bfloat16), folder)


def make_recipe(options: HydraTraining, target: HFTarget, documents: Documents) -> HydraRecipe:
    """The factory that the registry calls.

    Raises:
        OptionError: options of new heads beside heads to go on from.
        CheckpointError: a prefix layer for a target whose layers are no Llama's.
    """
    return HydraRecipe(options, target, documents)
