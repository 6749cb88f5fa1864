"""Bootstrap intervals: how far a figure moves with the prompts that happened to be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specdec.bench.benchmark_report import Range

RESAMPLES = 1000
_ENDS = (2.5, 97.5)  # of the 95 % in the middle


@dataclass(frozen=True)
class Statistic:
    """A number that is computed from batches.

    Attributes:
        count: of the batches.
        of: from batches ``[n, count]`` int64, by index, to a number for each of the n rows.
    """

    count: int
    of: Callable[[Any], Any]

    @property
    def value(self) -> float:
        """Of each batch once."""
        return float(self.of(np.arange(self.count)[None])[0])


def mean_interval(statistics: Sequence[Statistic]) -> Range | None:
    """The 95 % interval of the mean of some statistics over resampled batches, each over its own;
    None where none has two batches.

    The same seed every time, so the same runs give the same interval.

    Source: Efron 1979, the percentile interval.
    """
    if all(each.count < 2 for each in statistics):
        return None
    random = np.random.default_rng(0)
    size = RESAMPLES
    drawn = [each.of(random.integers(each.count, size=(size, each.count))) for each in statistics]
    low, high = np.percentile(np.mean(drawn, axis=0), _ENDS)
    return float(low), float(high)
