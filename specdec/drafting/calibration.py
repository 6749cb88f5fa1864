"""Calibration of draft scores: the probability that the target draws a token, learned online."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.state import State
from specdec.decoding.step import Step


class Prior(NamedTuple):
    """What is believed of a calibration before the first step: its s, and its b."""

    temperature: float
    log_weight_of_others: float


class Calibration:
    """The map from draft scores to acceptance probabilities, of one sampling setting.

    Of a node's k best children with scores z, child i is the target's token with probability
    ``exp(z_i / s) / (e^b + sum_j exp(z_j / s))``; ``e^b`` is the weight of every other token.
    ``s < 1`` sharpens the draft distribution, ``s > 1`` flattens it; ``b`` says how much goes past
    the children.

    It is fitted by the log loss, a proper score, at the nodes that the committed text passes
    through: there the target's token is known whatever the tree held, so what was drafted does not
    bias it. Each update is one Gauss-Newton step on all evidence so far, older evidence fading,
    from a prior that counts like some tens of nodes. No draw and no acceptance ever depends on it.

    Args:
        prior: what is believed before the first update.
        device: of the scores.
        lasting: updates that evidence counts for: each fades by 1 / lasting with every later one.

    Attributes:
        theta: ``[2]`` float64: log s and b.
        precision: ``[2, 2]`` float64: how sure it is of them.
        steps: how often it was updated.
    """

    def __init__(self, prior: Prior, device: torch.device, lasting: int) -> None:
        start = [math.log(prior.temperature), prior.log_weight_of_others]
        self._start = torch.tensor(start, dtype=torch.float64, device=device)
        self.theta = self._start
        self.steps = 0
        self._lasting = lasting
        self._floor = torch.diag(torch.tensor([10.0, 1.0], dtype=torch.float64, device=device))
        self.precision = self._floor.clone()

    def saved(self) -> dict[str, Any]:
        """What was learned, as JSON takes it."""
        return {
            "theta": self.theta.tolist(),
            "precision": self.precision.tolist(),
            "steps": self.steps,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what :meth:`saved` gave.

        Raises:
            KeyError, TypeError, ValueError: it is nothing of the kind.
        """
        theta, precision = (self.theta.new_tensor(saved[n]) for n in ("theta", "precision"))
        if theta.shape != (2,) or precision.shape != (2, 2) or type(saved["steps"]) is not int:
            raise ValueError("numbers of the wrong shape")
        if not (theta.abs() < 50).all() or not (torch.linalg.eigvalsh(precision) > 0).all():
            raise ValueError("numbers that no fit gives")
        self.theta, self.precision, self.steps = theta, precision, saved["steps"]

    def log_acceptance(self, scores: Tensor) -> Tensor:
        """Log-probability that each child is the target's token.

        Args:
            scores: ``[..., k]`` log draft scores of a node's best children; ``-inf`` for none.

        Returns:
            ``[..., k]`` float32, ``-inf`` where there is no child.
        """
        sharp = (scores * (-self.theta[0]).exp().float()).float()
        others = self.theta[1].float().expand(*sharp.shape[:-1], 1)
        return torch.log_softmax(torch.cat([sharp, others], dim=-1), dim=-1)[..., :-1]

    def learn(self, scores: Tensor, hit: Tensor, counts: Tensor) -> None:
        """Take in which child the target's token was, if any.

        Args:
            scores: ``[M, k]`` as above.
            hit: ``[M, k]`` bool, the child that carries the target's token.
            counts: ``[M]`` bool, the nodes that the committed text passed through.
        """
        exists = scores > float("-inf")
        scaled = scores.double() * (-self.theta[0]).exp()
        logits = torch.where(exists, scaled, float("-inf"))
        others = self.theta[1].expand(len(scores), 1)
        distribution = torch.softmax(torch.cat([logits, others], dim=1), dim=1)
        p, p_other = distribution[:, :-1], distribution[:, -1]
        x = torch.where(p > 0, scaled, 0.0)
        hit = hit & exists
        mean = (p * x).sum(dim=1)
        slope = mean - (hit * x).sum(dim=1)  # -d loss / d log s
        gradient = torch.stack([-slope, p_other - (~hit.any(dim=1)).double()], dim=1)
        variance = (p * x.square()).sum(dim=1) - mean.square()
        cross = mean * p_other
        fisher = torch.stack([variance, cross, cross, p_other * (1 - p_other)], dim=1)
        evidence = torch.where(counts[:, None], fisher, 0.0).sum(dim=0).view(2, 2)
        # The prior pulls as strongly as evidence fades.
        faded = counts.any() / self._lasting
        pull = self._floor @ (self.theta - self._start) * faded
        total = torch.where(counts[:, None], gradient, 0.0).sum(dim=0) + pull
        self.precision = self._floor + (self.precision - self._floor) * (1 - faded) + evidence
        self.steps += 1
        # The 2 x 2 system by hand: a library's solver may stop to look for errors.
        a, b, _, d = self.precision.flatten().unbind()
        step = torch.stack([d * total[0] - b * total[1], a * total[1] - b * total[0]])
        step = step / (a * d - b * b)
        self.theta = self.theta - step.clamp(-0.5, 0.5).nan_to_num(0.0)


@dataclass(frozen=True)
class ScoredLevel:
    """The children that one level was grown from.

    Attributes:
        frontier: the n nodes that they hang from.
        scores: ``[B, n, k]``, log draft scores.
        tokens: ``[B, n, k]`` int64.
    """

    frontier: Frontier
    scores: Tensor
    tokens: Tensor


def learn_acceptance(
    calibration: Calibration, levels: list[ScoredLevel], state: State, step: Step
) -> None:
    """Update a calibration by where the committed text went.

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
