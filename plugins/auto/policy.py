"""The tree policy ``auto``: the set of nodes that is worth most on this machine."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.growth import Growth, Proposal, couple, rows_of_children, top_by_value
from specdec.metrics import Clock
from specdec.roles import TreePolicy
from specdec.state import State, Step
from specdec.target import HFTarget
from specdec.tree import DraftTree
from specdec_plugins.auto.calibration import COUPLED, GREEDY, SAMPLED
from specdec_plugins.auto.costs import Economy, time_forwards
from specdec_plugins.auto.lessons import Level, learn
from specdec_plugins.auto.memory import Memory

BUDGETS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 60, 80, 100, 128)
_OFTEN, _SELDOM = 32, 4  # learn at each of the first steps, then at every fourth


class AutoOptions(BaseModel):
    """Options of the tree policy ``auto``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(8, ge=1, le=64, description="the most levels of draft tokens in a step")
    width: int = Field(4, ge=1, description="nodes expanded on each level")
    children: int = Field(8, ge=1, description="children of each of them")
    budget: int = Field(60, ge=1, description="the most draft tokens verified in a step")
    coupled: bool = Field(True, description="rank draft tokens by the noise of the target's draw")
    calibrated: bool = Field(True, description="learn what draft scores mean from what is accepted")
    costs: bool = Field(
        True, description="fit depth and budget of each step to measured costs; false: as given"
    )
    memory: str | None = Field(
        None, description="file that keeps what was learned of acceptance, read and written"
    )


class AutoPolicy(TreePolicy):
    """Grow by learned acceptance, stop where a level costs more than it brings, verify what pays.

    * *Value*: a child's confidence is the learned probability that the target draws it
      (:mod:`~specdec_plugins.auto.calibration`).
    * *Coupling*: at temperature above 0 scores carry the noise of the target's draw.
    * *Cost*: with tokens a second ``r`` of the recent steps, a node of value v pays if
      ``v > r * (seconds that it adds)``, a level likewise; when drafting as a whole brings less
      than plain decoding it pauses, and is tried again after ever longer pauses.

    Source: EAGLE-2 (arXiv 2406.16858), section 4 for the two phases; OPT-Tree (arXiv 2406.17276)
    and Sequoia (arXiv 2402.12374) for trees that fit a budget and a machine.
    """

    def __init__(self, options: AutoOptions) -> None:
        self.options, self.coupled = options, options.coupled
        self.memory = Memory(Path(options.memory).expanduser() if options.memory else None)

    @property
    def levels(self) -> int:  # type: ignore[override]
        return 0 if self._economy and self._economy.paused > 0 else self.options.depth

    def begin(self, target: HFTarget, state: State, clock: Clock) -> None:
        self._state, self._clock, self._seen = state, clock, 0
        processors = state.processors
        greedy, coupled = processors.greedy, self.options.coupled
        prior = GREEDY if greedy else COUPLED if coupled else SAMPLED
        self._setting = f"{processors.setting}, coupled={coupled}"
        self._calibration = self.memory.calibration(self._setting, prior, state.tokens.device)
        # Reading a tensor of a CPU waits for nothing; elsewhere it would be a second read a step.
        self._reads = state.tokens.device.type == "cpu"
        self._grown: list[Level] = []
        self._grown_at: list[float] = []
        self._economy = self._find_economy(target, state) if self.options.costs else None
        if self._economy:
            self._economy.resume()
        self._prepare()

    def expand(self, growth: Growth, proposal: Proposal) -> None:
        if growth.depth == 0:
            self._draft = self._clock.seconds["draft"]
        scores, tokens = self._scored(growth, proposal, self.options.children)
        k = scores.shape[-1]
        if self.options.calibrated:
            confidence = self._calibration.log_acceptance(scores)
            self._grown.append(Level(growth.frontier, scores, tokens))
        else:
            confidence = scores.float()
        values = (growth.frontier.log_value[:, :, None] + confidence).flatten(1)
        rows = rows_of_children(growth.frontier.width, k, tokens.device)
        growth.add(tokens.flatten(1), rows, values, branching=k)
        growth.advance_best(self.options.width)
        self._grown_at.append(time.perf_counter())
        if self._economy and self._reads and not self._next_level_pays(self._economy, values):
            growth.stop()

    def rerank(self, growth: Growth) -> DraftTree:
        if not (self._economy and self._reads):
            return top_by_value(growth, self.options.budget)
        budget, depth = self._best_budget(self._economy, growth)
        if budget == 0:
            return DraftTree.root(self._state.root())
        return top_by_value(growth, budget, depth=depth)

    def commit(self, step: Step) -> None:
        spent, economy = self._clock.seconds, self._economy
        if economy and self._rows:
            rest = spent["accept"] + spent["commit"] - self._rest
            economy.took(self._rows, step.tree.size, spent["verify"] - self._verify, rest)
            if self._grown_at:
                further = [end - start for start, end in pairwise(self._grown_at)]
                levels = [spent["draft"] - self._draft - sum(further), *further]
                tokens = sum(map(len, step.new_tokens))
                economy.drafted(self._rows, tokens, step.tree.size, levels)
            elif economy.paused:
                economy.paused -= 1
        steps = self._calibration.steps
        self._seen += bool(self._grown)
        if self._grown and (steps < _OFTEN or self._seen % _SELDOM == 0):
            learn(self._calibration, self._grown, self._state, step)
        self._prepare()
        if self._rows == 0:
            self.memory.save()

    def _prepare(self) -> None:
        """Get ready for the next step."""
        spent = self._clock.seconds
        self._grown, self._grown_at = [], []
        self._verify, self._rest = spent["verify"], spent["accept"] + spent["commit"]
        self._rows = sum(reason is None for reason in self._state.finish_reasons)

    def _find_economy(self, target: HFTarget, state: State) -> Economy | None:
        """That of this batch size and setting; none where no single forward verifies a tree, and
        where there is no memory to time one."""
        rows, options = state.rows, self.options
        if state.cache is None:
            return None
        times, economies = self.memory.times, self.memory.economies
        if rows not in times:
            most = options.children * (1 + options.width * (options.depth - 1))
            times[rows] = time_forwards(target, rows, state.longest, min(options.budget, most) + 1)
        key = self._setting, rows
        if times[rows] and key not in economies:
            economies[key] = Economy(times[rows])
        return economies.get(key)

    def _scored(self, growth: Growth, proposal: Proposal, k: int) -> tuple[Tensor, Tensor]:
        """The k best children of every frontier node: scores and tokens ``[B, n, k]``."""
        if not self.options.coupled:
            return proposal.top(k)
        guess = couple(growth, proposal)
        if guess is proposal or not self.options.calibrated:
            return guess.top(k)
        best = guess.logits.topk(min(k, guess.logits.shape[-1]), dim=-1)
        return best.values, guess.tokens(best.indices)

    def _next_level_pays(self, economy: Economy, values: Tensor) -> bool:
        width = min(self.options.width, values.shape[1])
        reach = values[self._state.active].exp().topk(width, dim=1).values.sum()
        return economy.level_pays(self._rows, float(reach))

    def _best_budget(self, economy: Economy, growth: Growth) -> tuple[int, int]:
        """The best number of draft tokens a row, and the depth of the tree that they make."""
        most = min(self.options.budget, growth.size - 1)
        ranked = growth.values.sort(dim=1, descending=True, stable=True)
        gains = ranked.values[self._state.active].exp().sum(dim=0).cumsum(dim=0).tolist()
        choices = [m for m in BUDGETS if m < most] + [most]
        budget = economy.best_budget(self._rows, {m: gains[m - 1] for m in choices})
        last = ranked.indices[:, :budget].max() if budget else -1
        return budget, growth.level_of(int(last) + 1)
