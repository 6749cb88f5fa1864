"""Which tree a step verifies: the one of most expected tokens for its expected seconds."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specdec.decoding.clock import StepSeconds
from specdec_plugins.auto.acceptance import LASTING, AcceptanceEstimates
from specdec_plugins.auto.costs import Costs
from specdec_plugins.auto.exploration import Exploration

# Draft tokens that are considered for a verification: few sizes, so that soon it is known what each
# costs; steps of a fifth to a third between them.
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 60, 80, 100, 128)


@dataclass
class StepPlan:
    """What a step is going to do, and what it is expected to bring.

    Attributes:
        rows: unfinished ones.
        unread: committed tokens of a row that the drafter has not read.
        measured: whether it is known what drafting costs.
        levels: the most levels; 0: the drafter is not asked.
        explores: whether asking the drafter is expected to lose.
        text_tokens: tokens of the text's suggestion that are candidates.
        rate: tokens that a second is worth.
        first_of_text: probability that the suggestion's first token is accepted.
        expected: draft tokens that the values of the tree expect to be accepted, of all rows.
        charged: seconds of this step that exploration has been charged with beforehand.
    """

    rows: int
    unread: int
    measured: bool
    levels: int = 0
    explores: bool = False
    text_tokens: int = 0
    rate: float = 0.0
    first_of_text: float = 0.0
    expected: float = 0.0
    charged: float = 0.0


class Decision:
    """The decisions of one generation.

    With r the best known rate, in tokens a second, a choice is worth its expected tokens less r
    times its expected seconds, and the choice that is worth most is taken: of plain decoding, the
    text's suggestion and the drafter before the step, of a further level while it grows, of the
    number of nodes when it is grown. At the best rate the best choice is worth nothing on average
    (Dinkelbach 1967), so r is the larger of plain decoding's rate and of drafting's. The text's
    suggestions do not enter r: they come with certain tokens, which are no sooner reached by
    hurrying over others.

    Args:
        depth: the most levels; 0 if there is no drafter.
        budget: the most draft tokens.

    Attributes:
        plan: of the step that comes.
    """

    costs: Costs
    acceptance: AcceptanceEstimates

    def __init__(self, depth: int, budget: int, exploration: Exploration) -> None:
        self._depth, self._budget, self._exploration = depth, budget, exploration
        self._opened: AcceptanceEstimates | None = None
        self.close: Callable[[], object] = lambda: None
        self.plan = StepPlan(rows=0, unread=0, measured=False)

    def open(self, costs: Costs, acceptance: AcceptanceEstimates, rows: int) -> None:
        """What is learned from here on, of ``rows`` rows; a text begins where that is new."""
        self.costs = costs
        if acceptance is not self._opened:
            self.close()
            # Of its own: other generations of the engine may run at the same time. What the text
            # has taught goes to all when it ends, or when nobody holds it any more.
            self._opened, self.acceptance = acceptance, copy.deepcopy(acceptance)
            self.acceptance.begin(rows)
            self.close = weakref.finalize(self, acceptance.absorb, self.acceptance, rows)

    @property
    def speedup(self) -> float:
        """Tokens a second of steps with a drafter over those of plain decoding."""
        tokens, levels, nodes = self.acceptance.drafter.means
        plain = self.costs.step(1)
        seconds = self.costs.draft(levels) + max(plain, self._step(nodes))
        return (1 + self._accepted_share * tokens) * plain / seconds

    def prepare(self, rows: int, room: int, unread: int, text: Sequence[float] = ()) -> StepPlan:
        """Decide on the step that comes.

        Args:
            rows: unfinished ones.
            room: draft tokens that the texts have room for.
            unread: committed tokens of a row that the drafter has not read.
            text: probabilities that the suggestion of the text expects, summed over rows and over
                its first n tokens, by n from 1 on.
        """
        costs = self.costs
        self.plan = plan = StepPlan(rows, unread, costs.drafting_known)
        if not costs.plain_known or room == 0:
            return plan
        plain, speedup = costs.step(1), self.speedup if self._depth else 0.0
        plan.rate = rows * max(1.0, speedup) / plain
        if text:
            plan.first_of_text = min(1.0, self.text_accepted_share * text[0] / rows)
        count = self._best_count(text, self.text_accepted_share)
        text_gain = self._gain(text, count, self.text_accepted_share)
        drafting_gain, reading = self._drafting_gain(text, count), costs.read(unread)
        drafts = (
            speedup > 1 and drafting_gain > text_gain and reading < room * plain * (1 - 1 / speedup)
        )
        gain = drafting_gain if drafts else text_gain
        if gain > 0 and costs.since_plain >= LASTING:
            # Plain steps are measured in twos.
            loss = gain / plan.rate
            if self._exploration.affords(loss if costs.nodes == 1 else 2 * loss):
                self._exploration.charge(loss)
                return plan
        if gain == 0:
            count, plan.explores = self._explore(text, reading - drafting_gain / plan.rate)
        plan.text_tokens, plan.expected = count, text[count - 1] if count else 0.0
        if drafts or plan.explores:
            plan.levels = self._depth if plan.measured else min(2, self._depth)
            plan.text_tokens = len(text)
        return plan

    def _drafting_gain(self, text: Sequence[float], count: int) -> float:
        """Tokens that a usual step with the drafter is worth beyond a plain one, with the first
        ``count`` tokens of the text's suggestion among its candidates."""
        costs, plan, share = self.costs, self.plan, self.text_accepted_share
        tokens, levels, nodes = self.acceptance.drafter.means
        tokens *= plan.rows * self._accepted_share
        of_text = share * text[count - 1] if count else 0.0
        tokens = max(tokens, of_text + (1 - plan.first_of_text) * tokens)
        verify = max(costs.step(count + 1), self._step(nodes))
        return tokens - plan.rate * (costs.draft(levels) + verify - costs.step(1))

    def _explore(self, text: Sequence[float], drafting_loss: float) -> tuple[int, bool]:
        """Where plain decoding is best: what may be tried all the same.

        Args:
            drafting_loss: seconds that a step with the drafter is expected to lose.

        Returns:
            Tokens of the text's suggestion to verify, and whether the drafter is tried.
        """
        exploration = self._exploration
        count = self._best_count(text, 1.0)
        if count and exploration.affords(
            loss := -self._gain(text, count, self.text_accepted_share) / self.plan.rate
        ):
            exploration.charge(loss)
            return count, False
        return 0, bool(self._depth) and exploration.starts_trial(drafting_loss, self.costs.step(1))

    def another_level(self, before: float, reach: float, mass: float, depth: int) -> bool:
        """Decide whether to grow a further level: it pays, or is measured, which is charged.

        It is taken to add to what it expands the share that the last one added.

        Args:
            before: summed probabilities of the nodes that the last level expanded.
            mass: of all its candidates.
            reach: of those that would be expanded.
            depth: levels so far.
        """
        costs = self.costs
        if not self.plan.measured:
            return True
        gain = self._accepted_share * reach * min(1.0, mass / before) if before else 0.0
        if gain > self.plan.rate * costs.level.value:
            return True
        if depth > 1 or costs.since_level < LASTING:
            return False
        affords = self._exploration.affords(costs.level.value)
        if affords:
            self._exploration.charge(costs.level.value)
            self.plan.charged += costs.level.value
        return affords

    def nodes(self, gains: Sequence[float]) -> int:
        """Decide how many draft tokens to verify of a tree that was grown, 0 included.

        Args:
            gains: summed probabilities of the best draft tokens, of all rows, by their number.
        """
        count = self._best_count(gains, self._accepted_share)
        if self.plan.explores and count == 0:  # a trial has to show something
            count = self._best_count(gains, 1.0)
        self.plan.expected = gains[count - 1] if count else 0.0
        return count

    def commit(self, seconds: StepSeconds, nodes: int, accepted: int | None) -> None:
        """Learn from a step.

        Args:
            nodes: of the tree that was verified.
            accepted: draft tokens accepted, of all rows; None where rows ended.
        """
        costs, acceptance, plan = self.costs, self.acceptance, self.plan
        levels = len(seconds.levels)
        costs.take(nodes, seconds.verify + seconds.other, seconds.levels, plan.unread)
        plain, step, drafting = costs.step(1), costs.step(nodes), costs.draft(levels)
        self._exploration.earn(step + drafting)
        acceptance.fade()
        if accepted is not None and plan.expected:
            if levels:
                acceptance.values.take(plan.rows, plan.expected, float(accepted))
            else:
                acceptance.text.take(plan.expected, float(accepted))
        if not levels or not plan.measured:
            return
        tokens = self._accepted_share * plan.expected
        loss = drafting + costs.read(plan.unread) + step - plain - plan.charged
        self._exploration.drafted(tokens / plan.rows * plain - loss, plain, explores=plan.explores)
        # What the text suggests tells little of the drafter.
        rows = (1 - plan.first_of_text) * plan.rows
        acceptance.drafter.take(rows, rows * plan.expected, rows * levels, rows * (nodes - 1))

    @property
    def _accepted_share(self) -> float:
        """Draft tokens accepted per token that the values of trees expect."""
        expected, accepted = self.acceptance.values.means
        return accepted / expected

    def _step(self, draft_tokens: float) -> float:
        """A step that verifies a mean number of draft tokens."""
        low = int(draft_tokens)
        part = draft_tokens - low
        return (1 - part) * self.costs.step(low + 1) + part * self.costs.step(low + 2)

    @property
    def text_accepted_share(self) -> float:
        """Draft tokens accepted per token that the text's suggestions expect."""
        (share,) = self.acceptance.text.means
        return share

    def _gain(self, gains: Sequence[float], count: int, share: float) -> float:
        """Tokens that verifying ``count`` draft tokens is worth beyond verifying none."""
        costs = self.costs
        tokens = share * gains[count - 1] if count else 0.0
        return tokens - self.plan.rate * (costs.step(count + 1) - costs.step(1))

    def _best_count(self, gains: Sequence[float], share: float) -> int:
        most = min(self._budget, len(gains))
        counts = [0, *[count for count in SIZES if count < most], *([most] if most else [])]
        return max(counts, key=lambda count: self._gain(gains, count, share))
