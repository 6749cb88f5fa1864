"""How often something has happened of late."""

from __future__ import annotations

# What every new case multiplies the weight of the older ones by.
_DECAY = 0.97


class DecayedRate:
    """A rate in which recent cases count most.

    Args:
        prior: the rate before the first case.
        weight: cases that the prior counts for.
    """

    def __init__(self, prior: float, weight: float) -> None:
        self._happened, self._cases = prior * weight, weight

    @property
    def value(self) -> float:
        """Strictly between 0 and 1 if the prior is."""
        return self._happened / self._cases

    def take(self, happened: bool) -> None:
        """One more case."""
        self._happened = _DECAY * self._happened + happened
        self._cases = _DECAY * self._cases + 1
