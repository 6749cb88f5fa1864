"""Where an acceptor, policy or verifier is wrong: deep, for some tokens, late, in some rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from broken_drafts import Policy, WrongVerifier
from torch import Tensor

from specdec.decoding.metrics import Clock
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State, Step
from specdec.decoding.traversal import Walk
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import Growth
from specdec.decoding.verification import Verification
from specdec.models.hf_target import HFTarget

# Whether a walking row is to take a draft token ``[B]`` unasked: ``[B]`` bool.
Where = Callable[[Walk, Tensor], Tensor]


def from_level(level: int) -> Where:
    """Draft tokens at this level and below, the root's children being at 1."""

    def where(walk: Walk, token: Tensor) -> Tensor:
        depth = walk.position - walk.verification.root_position()
        return depth >= level

    return where


def from_token(least: int) -> Where:
    return lambda walk, token: token >= least


def from_position(least: int) -> Where:
    return lambda walk, token: walk.position >= least


def from_row(least: int) -> Where:
    return lambda walk, token: torch.arange(len(token)) >= least


def from_new_token(least: int) -> Where:
    """As far as a row's own new tokens go."""

    def where(walk: Walk, token: Tensor) -> Tensor:
        state = walk.verification._state
        begins = torch.tensor([len(state.prompts[member]) for member in state.members])
        return walk.verification.root_position() - begins >= least

    return where


def unasked(
    where: Where, walk: Walk, tree: DraftTree, child: Tensor, token: Tensor
) -> tuple[Tensor, Tensor]:
    """The first draft token below each row's node where ``where`` says so, else what was drawn."""
    if not walk.branching:
        return child, token
    first = tree.children[:, :, 0].gather(1, walk.node[:, None]).squeeze(1)
    carried = tree.tokens.gather(1, first.clamp(min=0)[:, None]).squeeze(1)
    taken = (first >= 0) & where(walk, carried)
    return torch.where(taken, first, child), torch.where(taken, carried, token)


class Late(Policy):
    """Sampled drafts that are no draws from some step of a generation on."""

    def __init__(self, flaw: str, step: int) -> None:
        super().__init__("")
        self._late, self._step = flaw, step

    def begin(self, target: HFTarget, state: State, clock: Clock) -> None:
        self.flaw, self._seen = "", 0

    def expand(self, growth: Growth, proposal: Proposal) -> None:
        self.flaw = self._late if self._seen >= self._step else ""
        super().expand(growth, proposal)

    def commit(self, step: Step) -> None:
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
