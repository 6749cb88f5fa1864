"""Depth and budget by the very values of the step: where reading them waits for nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import pairwise

from torch import Tensor

from specdec.decoding.clock import Clock
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.reranking import top_by_value
from specdec_plugins.auto.economy import Books, Economy
from specdec_plugins.auto.pace import Plan

BUDGETS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 60, 80, 100, 128)
# Tokens of a text's own suggestion: few sizes, so that soon it is known what each costs.
_LENGTHS = (1, 2, 4, 8, 16, 32, 64)
# What the children of an accepted node are worth together.
_CHILD = 0.8
# Levels of the first step with drafts: it tells what a level costs.
_FIRST = 4
# After so many steps of one level a second one is grown in any case, to measure what it costs.
_STALE = 16


class Shortcut(Economy):
    """Stop growing where a level costs more than it brings, verify what pays.

    With r the tokens a second that decoding brings, a node of value v pays if v exceeds r times
    the seconds that it adds, a level likewise.

    Args:
        width: nodes expanded on each level.
    """

    def __init__(
        self,
        most: Plan,
        books: Books,
        width: int,
        state: State,
        clock: Clock,
        grows: bool = True,
    ) -> None:
        self._width, self._shallow, self._plain = width, 0, 0
        self._grown_at: list[float] = []
        super().__init__(most, books, state, clock, grows)

    def drafts(self) -> Plan:
        return self.most

    def trial(self) -> Plan:
        return self.most

    def lengths(self, longest: int) -> Iterable[int]:
        return [length for length in _LENGTHS if length <= longest]

    def goes_on(self, values: Tensor) -> bool:
        if not self._grown_at:
            self._draft = self.clock.seconds["draft"]
        self._grown_at.append(time.perf_counter())
        if self.costs.level.value == 0:
            return len(self._grown_at) < _FIRST
        width = min(self._width, values.shape[1])
        reach = float(self._active(values).exp().topk(width, dim=1).values.sum())
        pays = _CHILD * self.record.values.factor * reach > self._rate() * self.costs.level.value
        return pays or (self._shallow >= _STALE and len(self._grown_at) == 1)

    def tree(self, builder: TreeBuilder) -> DraftTree:
        most = min(self.plan.budget, builder.size - 1)
        ranked = builder.values.sort(dim=1, descending=True, stable=True)
        gains = self._active(ranked.values).exp().sum(dim=0).cumsum(dim=0).tolist()
        rate, trust = self._rate(), self.record.values.factor
        worth = {0: -rate * self.costs.verify(1)}
        for m in [m for m in BUDGETS if m < most] + [most]:
            worth[m] = trust * gains[m - 1] - rate * self.costs.verify(m + 1)
        budget = max(worth, key=lambda m: worth[m])
        self._promised = gains[budget - 1] if budget else 0.0
        if budget == 0:
            return DraftTree.root(self.state.root())
        last = int(ranked.indices[:, :budget].max())
        return top_by_value(builder, budget, depth=builder.level_of(last + 1))

    def take(self, step: Step, levels: int) -> None:
        size = step.tree.size
        verify = self.clock.seconds["verify"] - self._verify
        draft = self.clock.seconds["draft"] - self._draft if levels or size == 1 else 0.0
        if levels == 0 and size == 1:
            self._plain += 1
            # What lies in the processor's cache depends on the step before. Asking the text and
            # the policy's own work are left out: drafting is compared with decoding that does
            # neither.
            if self._plain > 1 and self.started is not None:
                self.costs.forwards.take(1, verify)
                self.costs.plain_rest.take(self.seconds() - self.started - verify - draft)
                self.costs.unchecked = 0
            return
        self._plain = 0
        self.costs.unchecked += 1
        new = size > 1 and not self.costs.forwards.settled(size)
        if size > 1:
            self.costs.forwards.take(size, verify)
        if self.started is not None:
            self.costs.rest.take(self.seconds() - self.started - verify - draft)
        if levels == 0:
            return
        further = [end - start for start, end in pairwise(self._grown_at)]
        self.costs.drafted([draft - sum(further), *further], self.unread)
        self._shallow = 0 if further else self._shallow + 1
        if not any(step.finished):
            self.record.values.take(sum(step.accepted), self._promised)
        if not self.costs.forwards.settled(1):
            return  # rows have left the batch: what this size costs is not known yet
        seconds = self.costs.draft(levels) + self.costs.verify(size)
        self.charge(step, levels, draft)
        tokens = 1 + self.record.values.factor * self._promised / self.rows
        self.record.brought(tokens, seconds / self.costs.plain, new=new)

    def _prepare(self) -> None:
        super()._prepare()
        self._verify, self._grown_at = self.clock.seconds["verify"], []
        self._draft = self.clock.seconds["draft"]

    def _active(self, values: Tensor) -> Tensor:
        return values[self.state.active]

    def _rate(self) -> float:
        return self.rows * max(1.0, self.speedup) / self.costs.plain
