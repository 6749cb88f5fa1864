"""Which tree a step verifies: the one of most expected tokens for its expected seconds."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence

from specdec.decoding.clock import StepSeconds
from specdec_plugins.auto.acceptance import LASTING, AcceptanceEstimates
from specdec_plugins.auto.costs import Costs

# Draft tokens that are considered for a verification: few sizes, so that soon it is known what each
# costs; steps of a fifth to a third between them.
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 60, 80, 100, 128)
# Of all seconds of decoding, the share that exploration may lose.
SHARE = 0.01


class Exploration:
    """The only source of steps that are expected to lose.

    What they lose against the best known choice is at most a share :data:`SHARE` of all seconds of
    decoding, and what one of them loses beyond its estimate, which is saved up before the next.

    Attributes:
        seconds: that may be lost now.
        trial: seconds gained so far in a trial of the drafter; None: no trial is under way.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.trial: float | None = None

    def earn(self, seconds: float) -> None:
        """Decoding took ``seconds``."""
        self.seconds += SHARE * seconds

    def affords(self, loss: float) -> bool:
        """Whether a step may be taken that is expected to lose ``loss`` seconds."""
        return self.seconds >= loss

    def charge(self, loss: float) -> None:
        """A step has lost ``loss`` seconds."""
        self.seconds -= max(0.0, loss)

    def close_trial(self) -> None:
        """The drafter pays by now, or was not worth the trial, which is charged."""
        if self.trial is not None:
            self.charge(-self.trial)
        self.trial = None


class Decision:
    """The decisions of one generation.

    With r the best known rate, in tokens a second, a choice is worth its expected tokens less r
    times its expected seconds, and the choice that is worth most is taken: of plain decoding, the
    prompt-lookup chain and the drafter before the step, of a further level while it grows, of the
    number of nodes when it is grown. At the best rate the best choice is worth nothing on average
    (Dinkelbach 1967), so r is the larger of plain decoding's rate and of drafting's. Prompt
    lookup does not enter r: it finds a match at certain positions of the text only, and finishing
    other steps sooner does not make matches more frequent.

    Args:
        depth: the most levels; 0 if there is no drafter.
        budget: the most draft tokens.

    Attributes:
        levels: the most levels of the step that comes.
        lookup_tokens: tokens of the prompt-lookup chain that are candidates in it.
    """

    costs: Costs
    acceptance: AcceptanceEstimates

    def __init__(self, depth: int, budget: int, exploration: Exploration) -> None:
        self._depth, self._budget, self._exploration = depth, budget, exploration
        self._opened: AcceptanceEstimates | None = None
        self.close: Callable[[], object] = lambda: None
        self.levels = self.lookup_tokens = self._unread = 0

    def open(self, costs: Costs, acceptance: AcceptanceEstimates, rows: int) -> None:
        """What is learned from here on, of ``rows`` rows; a text begins where that is new."""
        self.costs = costs
        if acceptance is not self._opened:
            self._exploration.close_trial()
            self.close()
            # Of its own: other generations of the engine may run at the same time. What the text
            # has taught goes to all when it ends, or when nobody holds it any more.
            self._opened, self.acceptance = acceptance, copy.deepcopy(acceptance)
            self.acceptance.begin(rows)
            self.close = weakref.finalize(self, acceptance.absorb, self.acceptance, rows)

    @property
    def speedup(self) -> float:
        """Tokens a second of steps with a drafter over those of plain decoding."""
        tokens, levels, drafted = self.acceptance.drafter.means
        plain = self.costs.step_seconds(1)
        seconds = self.costs.draft_seconds(levels) + max(plain, self._step_seconds(drafted))
        return (1 + self._accepted_share * tokens) * plain / seconds

    def prepare(self, rows: int, room: int, unread: int, lookup: Sequence[float] = ()) -> None:
        """Decide on the step that comes.

        Args:
            rows: unfinished ones.
            room: draft tokens that the texts have room for.
            unread: committed tokens of a row that the drafter has not read.
            lookup: draft tokens that the prompt-lookup chain expects to be accepted of its first n,
                of all rows, by n from 1 on.
        """
        costs, self._rows, self._unread = self.costs, rows, unread
        self.levels = self.lookup_tokens = 0
        self._expected, self._lookup = 0.0, 0.0
        self._measured = costs.drafting_known
        if not costs.plain_known or room == 0:
            return
        plain, speed = costs.step_seconds(1), self.speedup if self._depth else 0.0
        self._rate = rows * max(1.0, speed) / plain
        count = self._best_count(lookup, self.lookup_accepted_share)
        best = self._gain(lookup, count, self.lookup_accepted_share)
        self._lookup = self.lookup_accepted_share * lookup[count - 1] if count else 0.0
        self._chance = min(1.0, self.lookup_accepted_share * lookup[0] / rows) if lookup else 0.0
        tokens, levels, drafted = self.acceptance.drafter.means
        tokens *= rows * self._accepted_share
        tokens = max(tokens, self._lookup + (1 - self._chance) * tokens)
        seconds = (
            costs.draft_seconds(levels)
            + max(costs.step_seconds(count + 1), self._step_seconds(drafted))
            - plain
        )
        drafts = tokens - self._rate * seconds
        reading = costs.read_seconds(unread)
        if speed > 1 and drafts > best and reading < room * plain * (1 - 1 / speed):
            best = drafts
            self.levels = self._depth
        if best > 0 and costs.since_plain >= LASTING:
            # Plain steps are measured in twos.
            loss = best / self._rate
            if self._exploration.affords(loss if costs.nodes == 1 else 2 * loss):
                self.levels = 0
                self._exploration.charge(loss)
                return
        if best == 0:
            count = self._explore(lookup, reading - drafts / self._rate)
        self.lookup_tokens, self._expected = count, lookup[count - 1] if count else 0.0
        if self.levels:
            self.lookup_tokens = len(lookup)
            if not self._measured:
                self.levels = min(2, self._depth)

    def _explore(self, lookup: Sequence[float], drafting: float) -> int:
        """Where plain decoding is best: what may be tried all the same.

        Args:
            drafting: seconds that a step with the drafter is expected to lose.

        Returns:
            Tokens of the prompt-lookup chain to verify.
        """
        exploration = self._exploration
        count = self._best_count(lookup, 1.0)
        if count and exploration.affords(
            loss := -self._gain(lookup, count, self.lookup_accepted_share) / self._rate
        ):
            exploration.charge(loss)
            return count
        if self._depth and exploration.affords(drafting):
            exploration.close_trial()
            self.levels, exploration.trial = self._depth, 0.0
            # What was saved beyond that is not kept for many losses in a row.
            exploration.seconds = min(exploration.seconds, max(0.0, drafting))
        return 0

    def another_level(
        self, *, expanded: float, to_expand: float, candidates: float, depth: int
    ) -> bool:
        """Decide whether to grow a further level: it pays, or is measured, which is charged.

        Its nodes are expected to hold the share of what they hang from that the last level's do.

        Args:
            expanded: summed probabilities of the nodes that the last level hangs from.
            to_expand: of those that the next one would hang from.
            candidates: of all nodes of the last level.
            depth: levels so far.
        """
        costs = self.costs
        if not self._measured:
            return True
        share = min(1.0, candidates / expanded) if expanded else 0.0
        gain = self._accepted_share * to_expand * share
        if gain > self._rate * costs.level.value:
            return True
        if depth > 1 or costs.since_level < LASTING:
            return False
        affords = self._exploration.affords(costs.level.value)
        if affords:
            self._exploration.charge(costs.level.value)
        return affords

    def nodes(self, gains: Sequence[float]) -> int:
        """Decide how many draft tokens to verify of a tree that was grown, 0 included.

        Args:
            gains: summed probabilities of the best draft tokens, of all rows, by their number.
        """
        count = self._best_count(gains, self._accepted_share)
        self._expected = gains[count - 1] if count else 0.0
        return count

    def commit(self, seconds: StepSeconds, nodes: int, accepted: int | None) -> None:
        """Learn from a step.

        Args:
            nodes: of the tree that was verified.
            accepted: draft tokens accepted, of all rows; None where rows ended.
        """
        costs, acceptance = self.costs, self.acceptance
        levels = len(seconds.levels)
        costs.take(nodes, seconds.verify + seconds.other, seconds.levels, self._unread)
        self._exploration.earn(costs.step_seconds(nodes) + costs.draft_seconds(levels))
        acceptance.fade()
        if accepted is not None and self._expected:
            if levels:
                acceptance.values.take(self._rows, self._expected, float(accepted))
            else:
                acceptance.lookup.take(self._expected, float(accepted))
        if levels and self._exploration.trial is not None:
            plain = costs.step_seconds(1)
            drafting = costs.draft_seconds(levels) + costs.read_seconds(self._unread)
            extra = (
                (drafting if self._measured else sum(seconds.levels))
                + costs.step_seconds(nodes)
                - plain
            )
            self._exploration.trial += (
                self._accepted_share * self._expected * plain / self._rows - extra
            )
        if not levels or not self._measured:
            return
        # What prompt lookup drafts tells little of the drafter.
        rows, own = self._rows, 1 - self._chance
        acceptance.drafter.take(
            own * rows, own * self._expected, own * rows * levels, own * rows * (nodes - 1)
        )
        trial = self._exploration.trial
        if trial is not None and (self.speedup <= 1 or trial > 0):
            self._exploration.close_trial()

    @property
    def _accepted_share(self) -> float:
        """Draft tokens accepted per token that the values of trees expect."""
        expected, accepted = self.acceptance.values.means
        return accepted / expected

    def _step_seconds(self, draft_tokens: float) -> float:
        """A step that verifies a mean number of draft tokens."""
        low = int(draft_tokens)
        part = draft_tokens - low
        return (1 - part) * self.costs.step_seconds(low + 1) + part * self.costs.step_seconds(
            low + 2
        )

    @property
    def lookup_accepted_share(self) -> float:
        """Draft tokens accepted per token that prompt-lookup chains expect."""
        (share,) = self.acceptance.lookup.means
        return share

    def _gain(self, gains: Sequence[float], count: int, share: float) -> float:
        """Tokens that verifying ``count`` draft tokens is worth beyond verifying none."""
        costs = self.costs
        tokens = share * gains[count - 1] if count else 0.0
        return tokens - self._rate * (costs.step_seconds(count + 1) - costs.step_seconds(1))

    def _best_count(self, gains: Sequence[float], share: float) -> int:
        most = min(self._budget, len(gains))
        counts = [0, *[count for count in SIZES if count < most], *([most] if most else [])]
        return max(counts, key=lambda count: self._gain(gains, count, share))
