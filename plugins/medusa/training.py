"""The trainer of Medusa heads: its options and its recipe."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from specdec.training.batch import Batch
from specdec.training.depth_options import DepthTraining
from specdec.training.depth_recipe import DepthRecipe
from specdec_plugins.medusa.checkpoint import HEADS
from specdec_plugins.medusa.heads import MedusaSizes


class MedusaTraining(DepthTraining):
    """Options of the trainer ``medusa``."""

    layers: int = Field(2, ge=0, le=8, description="residual blocks of each head")


class MedusaRecipe(DepthRecipe):
    """Medusa-1: heads on a frozen target, whose blocks begin as the identity.

    Source: Medusa (arXiv 2401.10774), section 2.2.1.
    """

    strategy = "medusa"
    kind = HEADS

    def new_sizes(self, **common: Any) -> MedusaSizes:
        return MedusaSizes(**common)

    def begin(self, network: Any) -> None:
        for parameter in network.blocks.parameters():
            nn.init.zeros_(parameter)

    def outputs(self, network: Any, batch: Batch) -> Tensor:
        found: Tensor = network(batch.hidden.last.float())
        return torch.stack([each.roll(depth + 1, 1) for depth, each in enumerate(found)])
