"""What became of a property."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What became of one property.

    Attributes:
        name: of the property.
        failure: what is wrong and the smallest case that shows it; None if it holds.
        examples: cases that were checked.
        too_large: cases that had more outcomes than are enumerated even with the fewest open
            distributions; they are not counted.
        largest: the largest difference seen.
        seconds: how long it took.
        unit: of the difference; empty where things are the same or are not.
        measured: whether the difference is only measured, and no figure is a failure.
        narrowed: cases that had more outcomes than are enumerated, and were checked with fewer open
            distributions; they are counted.
    """

    name: str
    failure: str | None
    examples: int
    too_large: int
    largest: float
    seconds: float
    unit: str = ""
    measured: bool = False
    narrowed: int = 0

    @property
    def word(self) -> str:
        """The verdict in one word, for people."""
        return "FAILS" if self.failure is not None else "measured" if self.measured else "holds"

    @property
    def figure(self) -> str | None:
        """The largest difference with its unit, for people; None where there is none to measure,
        and where the property fails, which the difference of the cases that hold says nothing of.
        """
        if not self.unit or self.failure is not None:
            return None
        precise = f"{self.largest:.1e}" if 0 < self.largest < 1e-3 else f"{self.largest:.2g}"
        return f"{precise} {self.unit}"
