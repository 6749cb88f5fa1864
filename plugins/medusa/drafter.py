"""Medusa heads as drafter: every depth from the hidden state before the root."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.drafting.heads_drafter import HeadsDrafter, HeadsOptions
from specdec.models.hf_target import HFTarget
from specdec_plugins.medusa.heads import MedusaHeads


class MedusaOptions(HeadsOptions):
    """Options of the drafter ``medusa``."""

    checkpoint: str | MedusaHeads | None = Field(
        None,
        description="folder or hub id of Medusa heads trained for the target model, or loaded ones",
    )


class MedusaDrafter(HeadsDrafter):
    """Drafts token t + 2 + d at depth d of the tree from the target's last hidden state at token t,
    the one before the root.

    The draft distribution of a level is the same at all its nodes.

    Source: Medusa (arXiv 2401.10774), section 2.1.
    """

    def __init__(self, heads: MedusaHeads, options: MedusaOptions, target: HFTarget) -> None:
        super().__init__(heads, options, target)
        self._blocks = [target.accelerated(block) for block in heads.blocks]

    def outputs_at(self, read: Tensor, frontier: Frontier) -> Tensor:
        output: Tensor = self._blocks[frontier.depth](read)
        return output
