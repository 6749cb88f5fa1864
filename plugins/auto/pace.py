"""How deep a step grows and how many draft tokens it verifies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.reranking import top_by_value


@dataclass(frozen=True)
class Plan:
    """The shapes of a step, fixed before it begins.

    Attributes:
        depth: levels to grow; 0 for plain decoding, or for drafts from the text itself.
        budget: draft tokens to verify in each row.
    """

    depth: int
    budget: int


PLAIN = Plan(0, 0)
# Drafts from the text are verified from this probability on, where costs are not counted.
_LIKELY = 0.1


class Pace:
    """Every step as the options say.

    Attributes:
        plan: of the step that comes; of the texts' last steps less is grown where there is no room.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def asks_text(self) -> bool:
        """Whether it is worth asking in this step what the text itself suggests."""
        return False

    def from_text(self, chances: Sequence[Sequence[float]]) -> int:
        """How many tokens of what the text itself suggests to verify in place of a grown tree.

        Args:
            chances: for each row the probability of each such token that it is reached and right.
        """
        return 0

    def goes_on(self, values: Tensor) -> bool:
        """Whether another level is to be grown, after one of ``values [B, m]``."""
        return True

    def tree(self, builder: TreeBuilder) -> DraftTree:
        """What to verify of all that was grown."""
        return top_by_value(builder, self.plan.budget)

    def commit(self, step: Step, levels: int) -> None:
        """A step is over, of which so many levels were grown: plan the next one."""


class TextAlone(Pace):
    """Without a drafter and without costs: of what the text itself suggests, all that is likely."""

    def __init__(self) -> None:
        super().__init__(PLAIN)

    def asks_text(self) -> bool:
        return True

    def from_text(self, chances: Sequence[Sequence[float]]) -> int:
        return max(sum(chance >= _LIKELY for chance in own) for own in chances)
