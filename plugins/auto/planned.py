"""Depth and budget fixed before the step: where reading values would stop an accelerator."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

from specdec.growth import Growth
from specdec.metrics import Clock
from specdec.state import State, Step
from specdec.tree import DraftTree
from specdec_plugins.auto.economy import Books, Economy
from specdec_plugins.auto.forecast import Forecast
from specdec_plugins.auto.pace import Plan

# Few of each, so that few shapes come up; with its root a tree fills the tiles of a kernel.
DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
BUDGETS = (1, 3, 7, 15, 31, 63, 127)
# After so many steps with drafts one is grown a size deeper than it is thought to pay.
_CURIOUS = 16
# Advice is in millionths of a token.
_UNIT = 1_000_000


class Planned(Economy):
    """The plan of most tokens a second, by what the trees of the last steps promised.

    On the device each step adds up what its best m nodes down to each level promise; that comes
    with the step's one read. Nothing within a step depends on a value: its shapes are its plan's.

    Args:
        forecast: of the sampling setting.
        children: of each node.
        width: nodes expanded on each level.
    """

    def __init__(
        self,
        most: Plan,
        books: Books,
        forecast: Forecast,
        children: int,
        width: int,
        state: State,
        clock: Clock,
        grows: bool = True,
    ) -> None:
        self._forecast, self._budgets = forecast, budgets(most.budget)
        self._depths = [d for d in DEPTHS if d < most.depth] + [most.depth]
        self._capacity = [children * (1 + width * (d - 1)) for d in range(1, most.depth + 1)]
        self._drafted = 0
        super().__init__(most, books, state, clock, grows)

    def drafts(self) -> Plan:
        self._drafted += 1
        best = max(self._plans(), key=self._rate)
        deeper = [depth for depth in self._depths if depth > best.depth]
        if deeper and self._drafted % _CURIOUS == 0:
            return Plan(deeper[0], best.budget)
        return best

    def trial(self) -> Plan:
        return Plan(1, 0)

    def lengths(self, longest: int) -> Iterable[int]:
        return [m for m in self._budgets if m <= self.most.depth] if longest else ()

    def goes_on(self, values: Tensor) -> bool:
        if self.started is None:
            self.started = self.seconds()
        return True

    def tree(self, growth: Growth) -> DraftTree:
        return super().tree(growth) if self.plan.budget else DraftTree.root(self.state.root())

    def advice(self, growth: Growth) -> Tensor | None:
        ends = growth.ends
        down_to = _down_to(ends, growth.values.device)
        values = growth.values[:, None].masked_fill(~down_to, float("-inf"))
        best = values.sort(dim=2, descending=True).values.exp().cumsum(dim=2)
        last = _columns(tuple(min(m, ends[-1]) - 1 for m in self._budgets), best.device)
        return (best.index_select(2, last) * _UNIT).long().flatten(1)

    def take(self, step: Step, levels: int) -> None:
        record = self.record
        if self.started is not None:
            seconds = self.seconds() - self.started
            self.costs.ran(levels, step.tree.size, seconds, self.unread)
        if not levels:
            return
        told = [row for row, new in zip(step.advice, step.new_tokens, strict=True) if new]
        means = [sum(column) / len(told) / _UNIT for column in zip(*told, strict=True)]
        width = len(self._budgets)
        promised = [means[start : start + width] for start in range(0, len(means), width)]
        self._forecast.take(promised)
        if self.costs.warming:
            return
        if self.started is not None:
            self.charge(step, levels, seconds - self.costs.verify(step.tree.size))
        plan, now = Plan(levels, self.plan.budget), self._forecast.after(promised)
        if plan.budget:
            own = promised[-1][self._budgets.index(plan.budget)]
            if not any(step.finished):
                record.values.take(sum(step.accepted), own * len(told))
        else:
            plan = max(self._plans(), key=lambda plan: self._rate(plan, now))
            own = self._promised(plan, now)
        record.brought(1 + record.values.factor * own, self._seconds_of(plan) / self.costs.plain)

    def _plans(self) -> list[Plan]:
        return [
            Plan(depth, budget)
            for depth in self._depths
            for budget in self._budgets
            if budget <= self._capacity[depth - 1]
        ]

    def _rate(self, plan: Plan, forecast: Forecast | None = None) -> float:
        tokens = 1 + self.record.values.factor * self._promised(plan, forecast or self._forecast)
        return tokens / self._seconds_of(plan)

    def _promised(self, plan: Plan, forecast: Forecast) -> float:
        return forecast.promised(plan.depth)[self._budgets.index(plan.budget)]

    def _seconds_of(self, plan: Plan) -> float:
        return self.costs.draft(plan.depth) + self.costs.verify(plan.budget + 1)


def budgets(most: int) -> list[int]:
    """Those up to ``most``, which is always one of them."""
    return [m for m in BUDGETS if m < most] + [most]


@cache  # recorded graphs read them where they lie
def _down_to(ends: tuple[int, ...], device: torch.device) -> Tensor:
    """``[levels, N]`` bool: the candidates down to each level, of which ``ends`` counts them."""
    order = torch.arange(ends[-1], device=device)
    return order < torch.tensor(ends, device=device)[:, None]


@cache  # recorded graphs read them where they lie
def _columns(columns: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(columns, device=device)
