"""Cost model: seconds of the parts of a step at one batch size and about one length."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence

from specdec.drafting.seconds_by_size import BREAK_EVEN_TOKENS, RunningMedian, SecondsBySize


class Costs:
    """Seconds of a step: everything but drafting by the nodes of the tree, and drafting.

    Args:
        rows: batch size.
        break_even: as for :class:`~specdec.drafting.seconds_by_size.SecondsBySize`.

    Attributes:
        steps: verification and all that surrounds it, by nodes, the root included.
        first: the first draft level, for which the drafter reads a few committed tokens.
        level: any further one.
        reading: what each further unread token of a row adds to the first.
        nodes: of the last step.
        since_plain: steps since one of plain decoding was measured.
        since_level: steps with drafts since a further level was measured.
    """

    def __init__(self, rows: int, break_even: int = BREAK_EVEN_TOKENS) -> None:
        self.rows = rows
        self.steps = SecondsBySize(rows, break_even)
        self.first, self.level, self.reading = RunningMedian(), RunningMedian(), RunningMedian()
        self.since_plain = self.since_level = 0
        self.nodes, self._drafted = 0, False

    def for_rows(self, rows: int) -> Costs:
        """A copy for a batch of another size, or for texts of another length."""
        made = copy.deepcopy(self)
        made.rows = made.steps.rows = rows
        return made

    @property
    def plain_known(self) -> bool:
        """Whether plain decoding has been measured often enough."""
        return 1 in self.steps.sizes and self.steps.sizes[1].known

    @property
    def drafting_known(self) -> bool:
        """Whether draft levels have been measured often enough."""
        return self.level.known or self.first.known

    def step_seconds(self, nodes: int) -> float:
        """A step that verifies ``nodes`` nodes, without drafting."""
        return self.steps.seconds(nodes)

    def draft_seconds(self, levels: float) -> float:
        """Growing ``levels`` levels, with few tokens to read. Until it has been measured often
        enough, half of the estimate, so that it is tried again unless it is far too slow."""
        if levels == 0:
            return 0.0
        seconds = (self.first.value or self.level.value) + self.level.value * (levels - 1)
        return seconds if self.drafting_known else seconds / 2

    def read_seconds(self, unread: int) -> float:
        """What the drafter's reading of ``unread`` tokens a row adds to that."""
        return self.reading.value * unread if unread > 4 * BREAK_EVEN_TOKENS else 0.0

    def take(self, nodes: int, seconds: float, levels: Sequence[float], unread: int) -> None:
        """Take in a step.

        Args:
            nodes: of the tree that was verified.
            seconds: drafting left out.
            levels: seconds of each level, for the first of which ``unread`` tokens were read.
        """
        before, self.nodes = self.nodes, nodes
        self.since_plain += 1
        # What lies in the processor's cache depends on the step before: a plain step counts only
        # after another one, a first level only after a step with drafts.
        drafted, self._drafted = self._drafted, bool(levels)
        if nodes > 1 or (before == 1 and not levels):
            self.steps.take(nodes, seconds)
            self.since_plain = 0 if nodes == 1 else self.since_plain
        if not levels:
            return
        self.since_level += 1
        if further := levels[1:]:
            self.level.take(statistics.median_low(further))
            self.since_level = 0
        if unread <= 4 * BREAK_EVEN_TOKENS:
            if drafted:
                self.first.take(levels[0])
        elif usual := self.first.value or self.level.value:
            self.reading.take(max(0.0, levels[0] - usual) / unread)
