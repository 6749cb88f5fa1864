"""Bootstrap intervals: how far a figure moves with the prompts that happened to be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from specdec.bench.benchmark_report import Range

RESAMPLES = 1000
_ENDS = (2.5, 97.5)  # of the 95 % in the middle


def bootstrap(count: int, statistic: Callable[[Any], Any]) -> Range | None:
    """The 95 % interval of a statistic over resampled batches; None with one batch.

    The same seed every time, so the same runs give the same interval.

    Args:
        count: batches.
        statistic: from batches ``[RESAMPLES, count]`` int64, drawn with replacement, to a number
            for each row.

    Source: Efron 1979, the percentile interval.
    """
    if count < 2:
        return None
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    low, high = np.percentile(statistic(drawn), _ENDS)
    return float(low), float(high)
