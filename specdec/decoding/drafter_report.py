"""What a drafter says of itself: how well it predicts text of the target's own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """One way to read a checkpoint, and how well it predicts.

    Attributes:
        options: the drafter options that select this variant; empty for the one in use.
        agreement: share of the tokens that are the drafter's likeliest, given the target's own
            hidden states before each.
        agreement_fed_back: the same where the last of these was drafted too, as on the second
            level of a tree.
    """

    options: str
    agreement: float
    agreement_fed_back: float

    @property
    def score(self) -> float:
        """Both in one number."""
        return (self.agreement + self.agreement_fed_back) / 2


@dataclass(frozen=True)
class DrafterReport:
    """How well a drafter predicts a few tokens that its target wrote greedily.

    Attributes:
        tokens: how many.
        reading: as the drafter was made.
        tried: other ways to read its checkpoint, of flags that its tensors do not show.
        advice: what to do; empty where nothing seems wrong.
    """

    tokens: int
    reading: Reading
    tried: tuple[Reading, ...] = ()
    advice: str = ""

    @property
    def agreement(self) -> float:
        """Of the drafter as it was made."""
        return self.reading.agreement
