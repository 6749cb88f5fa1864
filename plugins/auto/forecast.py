"""How many draft tokens the trees to come will have accepted, by depth and budget."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

# What is promised before the first step: this factor a level.
_FIRST = 0.7
# Weight of the last step for the levels that it grew, and for those beyond.
_LAST, _GUESSED = 0.3, 0.1


class Forecast:
    """A mean over the last steps, level by level.

    A step says what its own tree promised, as deep as it was grown. For the levels beyond it is
    taken to go on as it ended, with less weight: so a tree that was good to its end is grown
    deeper before long.

    Args:
        depth: levels.
        budgets: choices of how many nodes to verify.
    """

    def __init__(self, depth: int, budgets: Sequence[int]) -> None:
        self._budgets = list(budgets)
        # What each level adds, by budget: a chain of m nodes has nothing deeper than m.
        self._added = [
            [_FIRST**level if level <= budget else 0.0 for budget in budgets]
            for level in range(1, depth + 1)
        ]

    def take(
        self,
        promised: Sequence[Sequence[float]],
        weight: float = _LAST,
        guessed: float = _GUESSED,
    ) -> None:
        """Take in a step.

        Args:
            promised: for each level that was grown, by budget, the expected accepted tokens of the
                best nodes down to it.
            weight, guessed: of the step, for these levels and for those beyond.
        """
        for column, budget in enumerate(self._budgets):
            sums = [0.0, *(level[column] for level in promised)]
            news = [max(0.0, high - low) for low, high in pairwise(sums)]
            before = news[-2] if len(news) > 1 else 1.0
            ratio = min(1.0, news[-1] / before) if before else 0.0
            for level, added in enumerate(self._added, start=1):
                if level <= len(news):
                    new, share = news[level - 1], weight
                else:
                    new = news[-1] * ratio ** (level - len(news)) if level <= budget else 0.0
                    share = guessed
                added[column] += share * (new - added[column])

    def after(self, promised: Sequence[Sequence[float]]) -> Forecast:
        """What would be expected if this step were all that is known."""
        alone = copy.deepcopy(self)
        alone.take(promised, 1.0, 1.0)
        return alone

    def promised(self, depth: int) -> list[float]:
        """By budget, the expected accepted tokens of a tree of ``depth`` levels."""
        return [sum(level) for level in zip(*self._added[:depth], strict=True)]
