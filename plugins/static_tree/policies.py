"""Trees whose shape is fixed beforehand: choices given as data, k-ary trees and chains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from specdec.decoding.interfaces import LevelProposer, TreeGrower, TreePolicy
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.tree import MOST_CHILDREN, MOST_LEVELS, MOST_NODES, tree_from_choices
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.coupling import COUPLED, couple
from specdec.drafting.expansion import grow_level
from specdec.drafting.samplers import sample_without_replacement

# The 25-node tree that the EAGLE-1 code ships ("mc_sim_7b_63"), ranks of the tokens on each path.
EAGLE1 = (
    (0,), (1,), (2,), (3,),
    (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0),
    (0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 2, 0), (0, 2, 1), (1, 0, 0),
    (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2),
    (0, 0, 0, 0, 0), (0, 0, 0, 0, 1),
)  # fmt: skip


class StaticOptions(BaseModel):
    """Options of the tree policy ``static_tree``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: tuple[tuple[int, ...], ...] = Field(
        EAGLE1,
        min_length=1,
        description="the nodes, each as the ranks of the tokens on its path (Medusa's format): at "
        f"most {MOST_NODES} nodes on {MOST_LEVELS} levels, ranks from 0 to {MOST_CHILDREN - 1}; "
        "EAGLE-1's 25 nodes by default",
    )
    coupled: bool = Field(False, description=COUPLED)
    sampled: bool = Field(
        False,
        description="above temperature 0 draw children from q, without replacement, as EAGLE-1's "
        "code does; false: take the likeliest tokens",
    )

    @field_validator("choices")
    @classmethod
    def _well_formed(cls, value: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        for path in value:
            if len(path) > MOST_LEVELS:
                raise ValueError(f"a path of {len(path)} tokens: give at most {MOST_LEVELS} levels")
            if max(path, default=0) >= MOST_CHILDREN:
                raise ValueError(
                    f"{list(path)} has the rank {max(path)}: give ranks from 0 to "
                    f"{MOST_CHILDREN - 1}"
                )
        if (nodes := len(paths := tree_from_choices(value))) > MOST_NODES:
            raise ValueError(f"{nodes:,} nodes: give at most {MOST_NODES:,}")
        return tuple(paths)

    @model_validator(mode="after")
    def _drawn_in_order(self) -> StaticOptions:
        if not self.sampled:
            return self
        if self.coupled:
            raise ValueError("sampled and coupled: give one of them")
        for *above, rank in self.choices:
            if rank and (*above, rank - 1) not in self.choices:
                raise ValueError(
                    f"{[*above, rank]} needs {[*above, rank - 1]} among the choices where children "
                    "are sampled: they are drawn one after the other"
                )
        return self


class KaryOptions(BaseModel):
    """Options of the tree policy ``kary_tree``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(2, ge=1, le=MOST_CHILDREN, description="children of every node")
    depth: int = Field(3, ge=1, le=MOST_LEVELS, description="levels of draft tokens below the root")
    coupled: bool = Field(False, description=COUPLED)

    @model_validator(mode="after")
    def _bounded(self) -> KaryOptions:
        if sum(self.k**d for d in range(1, self.depth + 1)) > MOST_NODES:
            raise ValueError(f"k={self.k}, depth={self.depth}: more than {MOST_NODES} nodes")
        return self


class ChainOptions(BaseModel):
    """Options of the tree policy ``chain``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(
        4, ge=1, le=MOST_LEVELS, description="draft tokens, each below the one before"
    )
    coupled: bool = Field(False, description=COUPLED)


Level = tuple[int, Tensor, Tensor]


class StaticTree(TreePolicy):
    """The same tree at every step; only its tokens change.

    Args:
        choices: nodes as paths of child ranks, closed under parents.
        coupled: whether children are ranked by the noise of the target's own draw.
        sampled: whether children are drawn from q where the request samples; then of every node's
            children the ranks must be 0, 1, ...

    Source: EAGLE-1 (arXiv 2401.15077), section 3, and its code, which draws children above
    temperature 0; Medusa (arXiv 2401.10774), section 2.3.
    """

    def __init__(
        self, choices: Sequence[Sequence[int]], *, coupled: bool = False, sampled: bool = False
    ) -> None:
        self.coupled, self.sampled = coupled, sampled
        paths = tree_from_choices(choices)
        self.levels = [_level(paths, depth) for depth in range(1, 1 + max(map(len, paths)))]

    def start(self, state: State, proposer: LevelProposer | None) -> StaticGrower:
        device = state.tokens.device
        levels = [(width, keep.to(device), next.to(device)) for width, keep, next in self.levels]
        sampled = self.sampled and not state.processors.greedy
        return StaticGrower(levels, coupled=self.coupled, sampled=sampled)


class StaticGrower(TreeGrower):
    """The trees of one generation.

    Args:
        plan: for each level the children of a node, which of them exist, and which are expanded.
        coupled: as of the policy.
        sampled: whether the children are drawn.
    """

    def __init__(self, plan: Sequence[Level], *, coupled: bool, sampled: bool) -> None:
        self.levels, self._plan = len(plan), plan
        self._coupled, self._sampled = coupled, sampled

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        if self._coupled:
            proposal = couple(builder, proposal)
        width, keep, expanded = self._plan[builder.depth]
        grow = sample_without_replacement if self._sampled else grow_level
        grow(builder, proposal, width, keep=keep)
        builder.advance(expanded)


def _level(paths: list[tuple[int, ...]], depth: int) -> Level:
    """How to grow one level: children a node, which of them exist, which are expanded next."""
    level = [path for path in paths if len(path) == depth]
    inner = {path[:-1] for path in paths if len(path) == depth + 1}
    parents = sorted({path[:-1] for path in level})
    width = 1 + max(path[-1] for path in level)
    keep = [parents.index(path[:-1]) * width + path[-1] for path in level]
    expanded = [index for index, path in enumerate(level) if path in inner]
    return width, torch.tensor(keep), torch.tensor(expanded, dtype=torch.int64)


def static_tree(options: StaticOptions) -> StaticTree:
    """Choices given as data."""
    return StaticTree(options.choices, coupled=options.coupled, sampled=options.sampled)


def kary_tree(options: KaryOptions) -> StaticTree:
    """Every node has k children, down to a depth."""
    choices: list[tuple[int, ...]] = [()]
    for start in range(options.depth):
        above = [path for path in choices if len(path) == start]
        choices += [(*path, rank) for path in above for rank in range(options.k)]
    return StaticTree(choices[1:], coupled=options.coupled)


def chain(options: ChainOptions) -> StaticTree:
    """The likeliest token, again and again."""
    return StaticTree(
        [(0,) * depth for depth in range(1, options.depth + 1)], coupled=options.coupled
    )
