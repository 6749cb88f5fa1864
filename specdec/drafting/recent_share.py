"""Recent share: how often something was so of late."""

from __future__ import annotations

# Older cases fade by this factor.
_FADING = 0.97


class RecentShare:
    """A share that recent cases count most for.

    Args:
        belief: the share before the first case.
        weight: cases that this counts for.
    """

    def __init__(self, belief: float, weight: float) -> None:
        self._so, self._all = belief * weight, weight

    @property
    def value(self) -> float:
        """Between 0 and 1, and neither, if the belief is."""
        return self._so / self._all

    def take(self, so: bool) -> None:
        """One more case."""
        self._so = _FADING * self._so + so
        self._all = _FADING * self._all + 1
