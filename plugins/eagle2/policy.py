"""EAGLE-2's dynamic draft tree: expansion by value, then reranking to a budget."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from specdec.decoding.interfaces import LevelProposer, TreeGrower, TreePolicy
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.tree import MOST_CHILDREN, MOST_LEVELS, MOST_NODES, DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.coupling import COUPLED, couple
from specdec.drafting.expansion import grow_level
from specdec.drafting.reranking import top_by_value
from specdec_plugins.eagle2.ablation import frontiers_alone, most_confident


class Eagle2Options(BaseModel):
    """Options of the tree policy ``eagle2``; the defaults are the paper's for 7B and 8B models."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(6, ge=1, le=MOST_LEVELS, description="levels of draft tokens below the root")
    top_k: int = Field(
        10, ge=1, le=MOST_CHILDREN, description="nodes expanded on each level, and children of each"
    )
    budget: int = Field(
        60, ge=1, le=MOST_NODES, description="draft tokens verified in a step, root excluded"
    )
    score: Literal["value", "confidence"] = Field(
        "value",
        description="what decides which nodes of a level are expanded: the product of confidences "
        "on the path, or, for ablations, the confidence of the node alone",
    )
    rerank: bool = Field(
        True,
        description="verify the best of all candidates; false, for ablations: the top_k best of "
        "each level, from the root down until the budget is spent",
    )
    coupled: bool = Field(False, description=COUPLED)


class Eagle2Policy(TreePolicy):
    """Expand the k nodes of highest value on each level, then keep the best ``budget`` of all.

    Source: EAGLE-2 (arXiv 2406.16858), sections 4.1 (expansion) and 4.2 (reranking).
    """

    def __init__(self, options: Eagle2Options) -> None:
        self.options, self.coupled = options, options.coupled

    def start(self, state: State, proposer: LevelProposer | None) -> Eagle2Grower:
        return Eagle2Grower(self.options)


class Eagle2Grower(TreeGrower):
    """The trees of one generation."""

    def __init__(self, options: Eagle2Options) -> None:
        self.levels, self.top_k, self.budget = options.depth, options.top_k, options.budget
        self.by_value, self.reranked = options.score == "value", options.rerank
        self._coupled = options.coupled

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        if self._coupled:
            proposal = couple(builder, proposal)
        grow_level(builder, proposal, self.top_k)
        if self.by_value:
            builder.advance_best(self.top_k)
        else:
            builder.advance(most_confident(builder, proposal, self.top_k))

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        if self.reranked:
            return top_by_value(builder, self.budget)
        return frontiers_alone(builder, self.budget)
