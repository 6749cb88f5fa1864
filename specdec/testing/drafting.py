"""A drafter whose law q is a table."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specdec.growth import Frontier, Proposal
from specdec.plugins import Component, NoOptions, hookimpl
from specdec.roles import Drafter, Features
from specdec.state import State, Step
from specdec.target import HFTarget
from specdec.testing.table_model import TableForCausalLM
from specdec.testing.tables import NEVER, Table


class TableDrafter(Drafter):
    """Drafts from a table of its own, by the last two tokens of every path.

    Attributes:
        laws: ``[V + 1, V, V]`` log-probabilities, as :meth:`Table.log_probs` gives them; even
            until they are set.
    """

    def __init__(self, options: NoOptions, target: HFTarget) -> None:
        size = target.vocab_size
        even = torch.full((1, 1, 1), -math.log(size), dtype=torch.float64, device=target.device)
        self.laws: Tensor = even.expand(size + 1, size, size)

    def begin(self, state: State, features: Features) -> None:
        self._state = state

    def propose(self, frontier: Frontier) -> Proposal:
        if frontier.depth == 0:
            position = self._state.root_position()[:, None]
            before = self._state.tokens.gather(1, (position - 1).clamp(min=0))
            before = torch.where(position > 0, before, self.laws.shape[1])
        else:
            before = frontier.history[-2].gather(1, frontier.parents)
        logits = self.laws[before, frontier.tokens]
        return Proposal(logits.masked_fill(logits <= NEVER, float("-inf")))

    def commit(self, step: Step) -> None:
        """The state has all that the next step needs."""

    def select(self, rows: Tensor) -> None:
        """The state has let the others go already."""


class TablePlugin:
    """Registers the drafter ``table``."""

    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return [Component("table", TableDrafter, NoOptions, "laws written down beforehand")]


def set_draft_table(drafter: object, table: Table) -> bool:
    """Let a drafter draft from ``table``; False for a drafter that has no table."""
    if isinstance(drafter, TableDrafter):
        drafter.laws = table.log_probs().to(drafter.laws.device)
        return True
    inner = getattr(getattr(drafter, "model", None), "model", None)
    if isinstance(inner, TableForCausalLM):
        inner.set_table(table)
        return True
    return False
