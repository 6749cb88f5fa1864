"""Target forwards timed before the first step, where a step's phases cannot be told apart."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from specdec.target import HFTarget

# Committed tokens a row beyond which forwards are not timed.
_LONGEST_CONTEXT = 2048
# Forwards of a size after the one that warms up, and their seconds after which no larger one is
# timed.
_REPEATED, _SLOW = 2, 0.3


def time_forwards(
    target: HFTarget, rows: int, context: int, sizes: Sequence[int]
) -> dict[int, float]:
    """Seconds of a target forward at several numbers of tokens a row.

    Args:
        rows: batch size.
        context: committed tokens a row.
        sizes: tokens a row, ascending.

    Returns:
        The best of two forwards each after a first one; fewer sizes where forwards are slow,
        nothing where the context is too short or there is no memory for it.
    """
    context = min(context, _LONGEST_CONTEXT, target.context_limit - max(sizes) - 1)
    if context < 1:
        return {}
    try:
        return _time_forwards(target, rows, context, sizes)
    except torch.OutOfMemoryError:
        return {}


def _time_forwards(
    target: HFTarget, rows: int, context: int, sizes: Sequence[int]
) -> dict[int, float]:
    device = target.device
    cache = target.new_cache(rows, context + max(sizes))
    cache.truncate(torch.full((rows,), context, device=device), context)
    times: dict[int, float] = {}
    for n in sizes:
        order = torch.arange(n, device=device)
        tokens = torch.zeros(rows, n, dtype=torch.int64, device=device)
        positions = (context + order).expand(rows, -1)
        among = (order <= order[:, None]).expand(rows, -1, -1)
        taken = []
        for _ in range(1 + _REPEATED):
            started = time.perf_counter()
            target.logits(target.forward(tokens, positions, among, cache).last)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            taken.append(time.perf_counter() - started)
        times[n] = min(taken[1:])
        if len(times) > 1 and sum(taken[1:]) > _SLOW:
            break
    return times
