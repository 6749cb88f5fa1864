"""A drafter whose distribution q is a table."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Features, LevelDrafter, LevelProposer
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.engine import Engine
from specdec.models.hf_target import HFTarget
from specdec.plugin.components import Component, NoOptions, hookimpl
from specdec.testing.support import Support
from specdec.testing.tables import NEVER, Table


class TableDrafter(LevelDrafter):
    """Drafts from a table of its own, by the last two tokens of every path and their position.

    Attributes:
        table: what it drafts from, if that is a table.
        distributions: ``[S + 1, S, S]`` log-probabilities, as :meth:`Table.log_probs` gives them;
            even until they are set.
    """

    def __init__(self, options: NoOptions, target: HFTarget) -> None:
        size = target.vocab_size
        even = torch.full((1, 1, 1), -math.log(size), dtype=torch.float64, device=target.device)
        self.distributions: Tensor = even.expand(size + 1, size, size)
        self.table: Table | None = None
        self._certain: Tensor | None = None

    def set_table(self, table: Table) -> None:
        """Draft from ``table``."""
        device = self.distributions.device
        self.table, self.distributions = table, table.log_probs().to(device)
        self._certain = None if table.open is None else table.certain().to(device)

    def start(self, state: State, features: Features) -> TableProposer:
        return TableProposer(self, state)

    def propose(self, state: State, frontier: Frontier) -> Proposal:
        """The rows of the table that the frontier's paths end in."""
        root = state.root_position()[:, None]
        if frontier.depth == 0:
            before = self._slots(state.tokens.gather(1, (root - 1).clamp(min=0)))
            before = torch.where(root > 0, before, self.distributions.shape[1])
        else:
            before = self._slots(frontier.history[-2].gather(1, frontier.parents))
        logits = self.distributions[before, self._slots(frontier.tokens)]
        if self._certain is not None:
            last = len(self._certain) - 1
            certain = self._certain[(root + frontier.depth).clamp(max=last)]
            logits = torch.where(certain.isnan(), logits, certain)
        if self.table is not None:
            logits = self.table.spread(logits)
        return Proposal(logits.masked_fill(logits <= NEVER, float("-inf")))

    def _slots(self, tokens: Tensor) -> Tensor:
        return tokens if self.table is None else self.table.slots(tokens)


class TableProposer(LevelProposer):
    """The drafts of one generation: the state has all that a step needs."""

    def __init__(self, drafter: TableDrafter, state: State) -> None:
        self._drafter, self._state = drafter, state

    def propose(self, frontier: Frontier) -> Proposal:
        return self._drafter.propose(self._state, frontier)

    def keep_rows(self, rows: Tensor) -> None:
        """The state has let the others go already."""


class TablePlugin:
    """Registers the drafter ``table``."""

    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return [
            Component("table", TableDrafter, NoOptions, "distributions written down beforehand")
        ]


def set_draft_table(engine: Engine, table: Table) -> bool:
    """Let the engine's drafter draft from ``table``; False for a drafter that has no table."""
    drafter = engine.parts.drafter
    if isinstance(drafter, TableDrafter):
        drafter.set_table(table)
        return True
    set_table = Support.of(engine.registry).drafter(engine.selection.names["drafter"]).set_table
    return set_table is not None and set_table(drafter, table)
