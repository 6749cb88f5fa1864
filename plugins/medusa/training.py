"""The trainer of Medusa heads: its options and its recipe."""

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
from specdec_plugins.medusa.checkpoint import load_heads
from specdec_plugins.medusa.heads import HeadSizes, MedusaHeads, Projection
from specdec_plugins.medusa.saving import save_heads

_VOCABULARY = 8192


class MedusaTraining(BaseModel):
    """Options of the trainer ``medusa``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: int = Field(4, ge=1, le=16, description="heads, so tokens ahead")
    layers: int = Field(2, ge=0, le=8, description="residual blocks of each head")
    projection: Projection = Field(
        "target",
        description="what gives logits: target, the target's lm_head as it is, so that nothing of "
        "the vocabulary's size is saved; shared, one for all heads, trained; own, one for each, "
        "trained, as in Medusa-1",
    )
    vocabulary: int | None = Field(
        None,
        ge=2,
        description="how many of the most frequent tokens of the answers are drafted; default: "
        f"{_VOCABULARY}, or all where the target has fewer",
    )
    step_decay: float = Field(0.8, gt=0, le=1, description="weight of each further head")
    start: str | None = Field(None, description="folder or hub id of heads to go on from")


_OF_NEW_HEADS = ("heads", "layers", "projection", "vocabulary")


class MedusaRecipe(DepthRecipe):
    """Medusa-1: heads on a frozen target.

    Source: Medusa (arXiv 2401.10774), section 2.2.1; blocks begin as the identity, projections as
    the target's lm_head.
    """

    strategy = "medusa"

    def __init__(self, options: MedusaTraining, target: HFTarget, documents: Documents) -> None:
        super().__init__(target)
        self.options, self.decay = options, options.step_decay
        self._begun: MedusaHeads | None = None
        if options.start is not None:
            if given := [name for name in _OF_NEW_HEADS if name in options.model_fields_set]:
                raise OptionError(
                    f"{given[0]} is that of the heads in start={options.start!r}: leave it out"
                )
            self._begun = load_heads(options.start, target)
            self.vocabulary, self.sizes = self._begun.vocabulary, self._begun.sizes
        else:
            self.vocabulary = _drafted(options, target, documents)
            self.sizes = _sizes(options, target, self.vocabulary)
        self.heads = self.sizes.heads

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {"vocabulary": self.sizes.draft_vocab_size}

    def make(self) -> MedusaHeads:
        if self._begun is not None:
            return copy.deepcopy(self._begun).float().train()
        made = MedusaHeads(self.sizes, self.vocabulary)
        for parameter in made.blocks.parameters():
            nn.init.zeros_(parameter)
        lm_head: Any = self.target.model.get_output_embeddings()
        for projection in made.lm_heads:
            with torch.no_grad():
                rows = (
                    lm_head.weight if self.vocabulary is None else lm_head.weight[self.vocabulary]
                )
                projection.get_parameter("weight").copy_(rows)
        return made.to(self.target.device).train()

    def outputs(self, network: Any, batch: Batch) -> Tensor:
        found: Tensor = network(batch.hidden.last.float())
        return torch.stack([each.roll(depth + 1, 1) for depth, each in enumerate(found)])

    def score(self, network: Any, outputs: Tensor, depth: int) -> Tensor:
        if self.sizes.projection == "target":
            return self.target_score(outputs)
        logits: Tensor = network.lm_heads[min(depth, len(network.lm_heads) - 1)](outputs)
        return logits

    def scoring(self, network: Any) -> Sequence[Tensor]:
        return list(network.lm_heads.parameters())

    def save(self, network: nn.Module, folder: Path) -> None:
        """In bfloat16, in vLLM's layout."""
        assert isinstance(network, MedusaHeads)
        save_heads(copy.deepcopy(network).to(torch.bfloat16), folder)


def _drafted(options: MedusaTraining, target: HFTarget, documents: Documents) -> Tensor | None:
    """The tokens that are drafted; None for all."""
    size = options.vocabulary or _VOCABULARY
    if size >= target.vocab_size:
        return None
    return torch.tensor(documents.frequent(size, target.ends), device=target.device)


def _sizes(options: MedusaTraining, target: HFTarget, vocabulary: Tensor | None) -> HeadSizes:
    drafted = target.vocab_size if vocabulary is None else len(vocabulary)
    sizes = target.hidden_size, target.vocab_size
    return HeadSizes(*sizes, options.heads, options.layers, True, options.projection, drafted)


def make_recipe(options: MedusaTraining, target: HFTarget, documents: Documents) -> MedusaRecipe:
    """The factory that the registry calls.

    Raises:
        OptionError: options of new heads beside heads to go on from.
    """
    return MedusaRecipe(options, target, documents)
