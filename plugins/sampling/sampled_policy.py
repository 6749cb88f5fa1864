"""The tree policy ``sampled``: draft tokens drawn from the draft distribution q."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field

from specdec.decoding.interfaces import LevelProposer, TreeGrower, TreePolicy
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.tree import MOST_LEVELS
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.samplers import sample, sample_without_replacement


class SampledOptions(BaseModel):
    """Options of the tree policy ``sampled``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(4, ge=1, le=MOST_LEVELS, description="levels of draft tokens below the root")
    width: int = Field(
        1, ge=1, le=8, description="draws at the root; every draw goes on as a chain"
    )
    replacement: bool = Field(
        True, description="draw siblings independently; false: without replacement"
    )


class Sampled(TreePolicy):
    """Draft tokens sampled from q: one chain, or several that share only the root.

    Source: Leviathan et al. (arXiv 2211.17192); several drafts as in SpecTr (arXiv 2310.15141).
    """

    def __init__(self, options: SampledOptions) -> None:
        self.options = options

    def start(self, state: State, proposer: LevelProposer | None) -> SampledGrower:
        return SampledGrower(self.options)


class SampledGrower(TreeGrower):
    """The trees of one generation."""

    def __init__(self, options: SampledOptions) -> None:
        self.levels, self.width = options.depth, options.width
        self._draw = sample if options.replacement else sample_without_replacement

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        self._draw(builder, proposal, self.width if builder.depth == 0 else 1)
        builder.advance(torch.arange(self.width, device=proposal.logits.device))
