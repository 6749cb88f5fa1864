"""What one step teaches: which children the committed text went to, of those that were grown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec_plugins.auto.calibration import Calibration


@dataclass(frozen=True)
class Level:
    """The children that one level was grown from.

    Attributes:
        frontier: the n nodes that they hang from.
        scores: ``[B, n, k]``, log draft scores.
        tokens: ``[B, n, k]`` int64.
    """

    frontier: Frontier
    scores: Tensor
    tokens: Tensor


def learn(calibration: Calibration, levels: list[Level], state: State, step: Step) -> None:
    """Tell the calibration where the committed text went.

    A node counts if the text passed through it and went on, whether or not it was verified.

    Args:
        levels: of the step, from the root on.
        state: after the step.
    """
    counts = step.counts
    order = torch.arange(step.longest, device=counts.device)
    slots = (state.lengths - counts)[:, None] + order
    text = state.tokens.gather(1, slots.clamp(max=state.tokens.shape[1] - 1))
    passed = torch.ones_like(counts, dtype=torch.bool)[:, None]
    scores, hits, known = [], [], []
    for depth, level in enumerate(levels[: step.longest]):
        if depth:
            follows = level.frontier.tokens == text[:, depth - 1, None]
            follows = follows & (level.frontier.log_value > float("-inf"))
            passed = passed.gather(1, level.frontier.parents) & follows
        scores.append(level.scores.flatten(0, 1))
        hits.append((level.tokens == text[:, depth, None, None]).flatten(0, 1))
        known.append((passed & (counts > depth)[:, None]).flatten())
    calibration.learn(torch.cat(scores), torch.cat(hits), torch.cat(known))
