"""What the parts of a step cost on this machine, at one batch size and about one length."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Sequence

from specdec_plugins.auto.curve import Curve, Typical

# Tokens of a batch that cost a forward as much as its weights do, where nothing is known.
_FREE = 16
# Unread tokens up to this many are read at the price of the first level.
_FEW = 16


def doublings(longest: int) -> int:
    """The length of texts, for what a forward over them costs: 0 up to some 360 tokens, then one
    more for each doubling."""
    return max(0, round(math.log2(longest / 256)))


class Costs:
    """Seconds of the parts of a step; typical ones.

    Args:
        rows: batch size.

    Attributes:
        forwards: of the target, by tokens a row.
        first: the first draft level, for which the drafter reads a few committed tokens.
        level: any further one.
        reading: what each further unread token adds to the first.
        rest: accepting and committing a tree, learning from it.
        plain_rest: the same for a root alone.
        unchecked: steps with drafts since plain decoding was measured.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.forwards = Curve(lambda size: 1 + rows * size / _FREE)
        self.first, self.level, self.reading = Typical(), Typical(), Typical()
        self.rest, self.plain_rest = Typical(), Typical()
        self.unchecked = 0

    def another(self) -> Costs:
        """Of the same batch size at another length: unknown, but these, which are known, are the
        first guess."""
        made = Costs(self.rows)
        made.forwards = Curve(copy.deepcopy(self.forwards).seconds)
        for name in ("first", "level", "reading", "rest", "plain_rest"):
            setattr(made, name, Typical(getattr(self, name).value))
        return made

    @property
    def plain_known(self) -> bool:
        """Whether plain decoding has been measured often enough."""
        return self.forwards.settled(1)

    @property
    def plain(self) -> float:
        """A step of plain decoding."""
        return self.verify(1)

    def verify(self, size: int) -> float:
        """From the drafts to the next step, for a tree of ``size`` nodes."""
        return self.forwards.seconds(size) + (self.plain_rest if size == 1 else self.rest).value

    def draft(self, levels: int) -> float:
        """Growing a tree of so many levels, with few tokens to read."""
        return self.first.value + self.level.value * (levels - 1)

    def read(self, unread: int) -> float:
        """What the drafter's reading of ``unread`` tokens a row adds to that."""
        return self.reading.value * unread if unread > _FEW else 0.0

    def drafted(self, levels: Sequence[float], unread: int) -> None:
        """Take in the seconds of each level, for the first of which ``unread`` tokens were read."""
        if unread <= _FEW:
            self.first.take(levels[0])
        elif self.first.value:
            self.reading.take(max(0.0, levels[0] - self.first.value) / unread)
        if further := levels[1:]:
            self.level.take(statistics.median_low(further))
