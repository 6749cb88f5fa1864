"""Acceptance: what a draft score means, how promises are kept, what a drafter adds to a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.state import State
from specdec.decoding.step import Step

# Evidence counts as much as that of so many steps: each fades by a part of so many with every later
# step. Long enough to average over the tokens of a sentence or two, short enough to follow a text.
LASTING = 50
# What is believed when a text begins counts like so many steps (promised tokens for a text's
# suggestions): little enough that a text which differs from others is found out within it.
BELIEVED = 8.0
# What a step with a drafter is taken to bring before the first: draft tokens accepted, levels
# grown, draft tokens verified. Large enough that a drafter is tried on any usual machine.
FIRST_YIELD = (2.5, 4.0, 10.0)


class Prior(NamedTuple):
    """What is believed of a calibration's s and b before the first step."""

    sharpness: float
    others: float


# (s, b) by kind of draft, fitted once on the embedded model: at temperature 0 a draft distribution
# trained by cross-entropy is too flat for an argmax; under coupling the noise decides most of the
# draw. Without unit.
PRIORS = {
    "greedy": Prior(sharpness=0.53, others=-6.0),
    "coupled": Prior(sharpness=0.78, others=-1.6),
    "sampled": Prior(sharpness=0.9, others=-1.6),
}


def prior_at(temperature: float, *, greedy: bool, coupled: bool) -> Prior:
    """The prior of a sampling setting: of coupled drafts on the line from an argmax to temperature
    1, as the noise decides the less the colder it is."""
    if not coupled:
        return PRIORS["greedy" if greedy else "sampled"]
    cold, warm, share = PRIORS["greedy"], PRIORS["coupled"], min(1.0, temperature)
    return Prior(
        cold.sharpness + share * (warm.sharpness - cold.sharpness),
        cold.others + share * (warm.others - cold.others),
    )


class Calibration:
    """The map from draft scores to acceptance probabilities, of one sampling setting.

    Of a node's k best children with scores z, child i is the target's token with probability
    ``exp(z_i / s) / (e^b + sum_j exp(z_j / s))``; ``e^b`` is the weight of every other token. ``s``
    sharpens or flattens the draft distribution, ``b`` says how much goes past the children.

    It is fitted by the log loss, a proper score, at the nodes that the committed text passes
    through: there the target's token is known whatever the tree held, so what was drafted does not
    bias it. Each update is one Gauss-Newton step on all evidence so far, older evidence fading,
    from a prior that counts like some tens of nodes. No draw and no acceptance ever depends on it.

    Attributes:
        theta: ``[2]`` float64: log s and b.
        precision: ``[2, 2]`` float64: how sure it is of them.
        steps: how often it was updated.
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
        # The prior pulls as strongly as evidence fades.
        faded = counts.any() / LASTING
        pull = self._floor @ (self.theta - self._start) * faded
        total = torch.where(counts[:, None], gradient, 0.0).sum(dim=0) + pull
        self.precision = self._floor + (self.precision - self._floor) * (1 - faded) + evidence
        self.steps += 1
        # The 2 x 2 system by hand: a library's solver may stop to look for errors.
        a, b, _, d = self.precision.flatten().unbind()
        step = torch.stack([d * total[0] - b * total[1], a * total[1] - b * total[0]])
        step = step / (a * d - b * b)
        self.theta = self.theta - step.clamp(-0.5, 0.5)


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


class Estimate:
    """Means of some amounts per unit of weight: sums that fade.

    Within a text they fade by the step, whether or not there was an observation, so that after a
    pause one observation decides. A text begins with the means over the texts before it, which fade
    in the same way, each text like the observations that its beginning counts for.

    Args:
        means: before the first observation; they count like one text.
    """

    def __init__(self, *means: float) -> None:
        self._texts = [BELIEVED * mean for mean in (1.0, *means)]
        self._text = [0.0] * len(self._texts)
        self.begin()

    def begin(self, rows: int = 1) -> None:
        """A text begins, or so many."""
        if self._text[0]:
            # It counts in full from as much on as is believed at its beginning.
            counts = min(BELIEVED * rows, self._text[0])
            fading, scale = (1 - 1 / LASTING) ** counts, counts / self._text[0]
            self._texts = [
                fading * old + scale * new for old, new in zip(self._texts, self._text, strict=True)
            ]
        self._text = [0.0] * len(self._texts)
        self._sums = [BELIEVED * old / self._texts[0] for old in self._texts]

    def take(self, weight: float, *amounts: float) -> None:
        """One observation: amounts that came of so much weight."""
        self._sums = [old + x for old, x in zip(self._sums, (weight, *amounts), strict=True)]
        self._text = [old + x for old, x in zip(self._text, (weight, *amounts), strict=True)]

    def fade(self) -> None:
        """A step has passed."""
        if self._sums[0] > 1e-3:  # it is little sure by then, and never of nothing
            self._sums = [old - old / LASTING for old in self._sums]

    @property
    def means(self) -> list[float]:
        """Of each amount, per unit of weight."""
        weight, *amounts = self._sums
        return [amount / weight for amount in amounts]


class Acceptance:
    """What was seen to be accepted, of one sampling setting and about one batch size.

    Attributes:
        values: draft tokens that the values of a row's tree promise, and those accepted.
        text: draft tokens accepted per token that the text's suggestion promises, of trees that
            hold nothing else.
        drafter: what a row's step with a drafter brings: draft tokens that its tree promises,
            levels grown, draft tokens verified.
    """

    def __init__(self) -> None:
        tokens = FIRST_YIELD[0]
        self.values, self.text = Estimate(tokens, tokens), Estimate(1.0)
        self.drafter = Estimate(*FIRST_YIELD)

    def begin(self, rows: int) -> None:
        """A text begins, or so many."""
        for estimate in (self.values, self.text, self.drafter):
            estimate.begin(rows)

    def fade(self) -> None:
        """A step has passed."""
        for estimate in (self.values, self.text, self.drafter):
            estimate.fade()
