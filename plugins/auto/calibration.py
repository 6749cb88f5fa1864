"""What a draft score means: the probability that the acceptor takes the token, learned online.

Model: of a node's k best children with scores z, child i is the target's token with probability
``exp(z_i / s) / (e^b + sum_j exp(z_j / s))``; ``e^b`` is the weight of every other token. ``s``
sharpens or flattens the draft distribution, ``b`` says how much goes past the children.

It is fitted by the log loss, a proper score, at the nodes that the committed text passes through:
there the target's token is known whatever the tree held, so what was drafted does not bias it. Each
step is one Gauss-Newton step on all evidence so far, older evidence fading, from a prior that
counts like some tens of nodes. No draw and no acceptance ever depends on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# About so many nodes count: evidence fades as new evidence comes.
_MEMORY = 500
_LARGEST_STEP = 0.5


@dataclass(frozen=True)
class Prior:
    """What is believed before the first step.

    Attributes:
        sharpness: s.
        others: b.
    """

    sharpness: float
    others: float


# Fitted once on the embedded model: at temperature 0 a draft distribution trained by cross-entropy
# is too flat for an argmax; under coupling the noise decides most of the draw.
GREEDY = Prior(sharpness=0.53, others=-6.0)
COUPLED = Prior(sharpness=0.78, others=-1.6)
SAMPLED = Prior(sharpness=0.9, others=-1.6)


def coupled_at(temperature: float) -> Prior:
    """Between that of an argmax and that of temperature 1: the colder, the less the noise decides.

    What the embedded model's drafts teach at temperature 0.7 lies on this line.
    """
    warmth = min(1.0, temperature)
    return Prior(
        GREEDY.sharpness + warmth * (COUPLED.sharpness - GREEDY.sharpness),
        GREEDY.others + warmth * (COUPLED.others - GREEDY.others),
    )


class Calibration:
    """The map of one sampling setting.

    Attributes:
        theta: ``[2]`` float64: log s and b.
        precision: ``[2, 2]`` float64: how sure it is of them.
        steps: how often it has learned.
    """

    def __init__(self, prior: Prior, device: torch.device) -> None:
        start = [math.log(prior.sharpness), prior.others]
        self._start = torch.tensor(start, dtype=torch.float64, device=device)
        self.theta = self._start
        self.steps = 0
        self._floor = torch.diag(torch.tensor([10.0, 1.0], dtype=torch.float64, device=device))
        self.precision = self._floor.clone()

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
        nodes = counts.sum()
        # The prior pulls as strongly as evidence fades.
        pull = self._floor @ (self.theta - self._start) * (nodes / _MEMORY)
        total = torch.where(counts[:, None], gradient, 0.0).sum(dim=0) + pull
        fading = (1 - 1 / _MEMORY) ** nodes
        self.precision = self._floor + (self.precision - self._floor) * fading + evidence
        self.steps += 1
        # The 2 x 2 system by hand: a library's solver may stop to look for errors.
        a, b, _, d = self.precision.flatten().unbind()
        step = torch.stack([d * total[0] - b * total[1], a * total[1] - b * total[0]])
        step = step / (a * d - b * b)
        self.theta = self.theta - step.clamp(-_LARGEST_STEP, _LARGEST_STEP)
