"""Where an acceptor, policy or verifier is wrong: deep, for some tokens, late, in some rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from broken_drafts import Policy, WrongVerifier
from torch import Tensor

from specdec.decoding.clock import StepSeconds
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.traversal import TreeTraversal
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.decoding.verification import Verification
from specdec.models.hf_target import HFTarget

# Whether a undecided row is to take a draft token ``[B]`` unasked: ``[B]`` bool.
Where = Callable[[TreeTraversal, Tensor], Tensor]


def from_level(level: int) -> Where:
    """Draft tokens at this level and below, the root's children being at 1."""

    def where(traversal: TreeTraversal, token: Tensor) -> Tensor:
        depth = traversal.position - traversal.verification.root_position()
        return depth >= level

    return where


def from_token(least: int) -> Where:
    return lambda traversal, token: token >= least


def from_position(least: int) -> Where:
    return lambda traversal, token: traversal.position >= least


def from_row(least: int) -> Where:
    return lambda traversal, token: torch.arange(len(token)) >= least


def from_new_token(least: int) -> Where:
    """As far as a row's own new tokens go; needs the verifier ``Telling``."""

    def where(traversal: TreeTraversal, token: Tensor) -> Tensor:
        begins = vars(traversal.verification)["begins"]
        return traversal.verification.root_position() - begins >= least

    return where


def unasked(
    where: Where, traversal: TreeTraversal, tree: DraftTree, child: Tensor, token: Tensor
) -> tuple[Tensor, Tensor]:
    """The first draft token below each row's node where ``where`` says so, else what was drawn."""
    if not traversal.branching:
        return child, token
    first = tree.children[:, :, 0].gather(1, traversal.node[:, None]).squeeze(1)
    carried = tree.tokens.gather(1, first.clamp(min=0)[:, None]).squeeze(1)
    taken = (first >= 0) & where(traversal, carried)
    return torch.where(taken, first, child), torch.where(taken, carried, token)


class Late(Policy):
    """Sampled drafts that are no draws from some step of a generation on."""

    def __init__(self, flaw: str, step: int) -> None:
        super().__init__("")
        self._late, self._step, self._seen = flaw, step, 0

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        self.flaw = self._late if self._seen >= self._step else ""
        super().expand(builder, proposal)

    def learn(self, step: Step, seconds: StepSeconds) -> None:
        self._seen += 1


class Partly(WrongVerifier):
    """A verifier that is wrong from some position of a row on, or from some row on."""

    def __init__(self, flaw: str, position: int, rows: int = 1) -> None:
        super().__init__(flaw)
        self._position, self._rows, self._late = position, rows, flaw

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        late = max(state.host_lengths) >= self._position and state.rows >= self._rows
        self.flaw = self._late if late else ""
        return super().verify(target, state, tree)
