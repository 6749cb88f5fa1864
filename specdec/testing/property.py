"""One property of a strategy: how it is checked, on what, and whom it concerns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from specdec.testing.cases import Case
from specdec.testing.subject import Subject

# What Hypothesis draws, each with its share of the examples.
Kinds = list[tuple[Any, float]]


@dataclass(frozen=True)
class Property:
    """One property of a strategy.

    Attributes:
        check: raises an AssertionError where it does not hold; returns the largest difference.
        cases: what Hypothesis draws for it: one strategy, or a function that gives a subject's own,
            several kinds of them with the share of the examples that each gets.
        share: of the suite's number of examples.
        unit: what the difference is measured in; empty where things are the same or are not.
        seed_exact: whether it only means something for acceptors that draw as plain decoding.
        lossy: whether it is for lossy strategies, and other properties of the distribution are not.
        distribution: whether a lossy strategy is excused from it.
        without: why it means nothing for the subject; None if it does.
    """

    check: Callable[[Subject, Case], float]
    cases: Any
    share: float = 1.0
    unit: str = ""
    seed_exact: bool = False
    lossy: bool = False
    distribution: bool = False
    without: Callable[[Subject], str | None] = lambda subject: None

    @property
    def name(self) -> str:
        """What users see."""
        return self.check.__name__

    @property
    def meaning(self) -> str:
        """One sentence."""
        return (self.check.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")

    def cases_of(self, examples: int) -> int:
        """How many cases it is checked on."""
        return max(1, int(examples * self.share))

    def kinds(self, subject: Subject, examples: int) -> list[tuple[Any, int]]:
        """What is drawn for the subject, and how many of each kind."""
        count = self.cases_of(examples)
        if not callable(self.cases):
            return [(self.cases, count)]
        given: Kinds = self.cases(subject)
        total, found, before = sum(share for _, share in given), [], 0.0
        for kind, share in given:
            own = round((before + share) * count / total) - round(before * count / total)
            before += share
            found += [(kind, own)] if own else []
        return found

    def excuse(self, subject: Subject) -> str | None:
        """Why it does not concern the subject; None if it does."""
        if not subject.lossless and self.seed_exact:
            return "the acceptor says that it is lossy: its tokens are not plain decoding's"
        if not subject.lossless and self.distribution:
            return "the acceptor says that it is lossy: its distance is measured instead"
        if subject.lossless and self.lossy:
            return "the acceptor says that it is lossless: its distribution is judged, not measured"
        if self.seed_exact and not subject.seed_exact:
            return "the acceptor keeps the distribution, not the tokens of a seed"
        return self.without(subject)
