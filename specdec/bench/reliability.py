"""Whether confidences are probabilities: reliability curve, calibration error, proper scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from specdec.decoding.step import Step

BINS = 10
_LEAST = 1e-6  # a certain miss has an infinite log loss
_ROUNDING = 1e-4


def children(step: Step, row: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Every draft child of the nodes that the committed text of ``row`` passes through.

    Under an acceptor that is seed-exact the token committed after such a node is the target's own
    there, whatever the tree held: an outcome for each child that no choice of the tree biases.

    Returns:
        Confidence ``[m]`` float64, the child's value over its parent's; outcome ``[m]`` bool,
        whether it is the target's token; best ``[m]`` bool, the first likeliest child of its node.
    """
    tree, new = step.tree, step.new_tokens[row]
    nodes = step.kept[row, : len(new)]
    target = torch.tensor(new, dtype=torch.int64, device=nodes.device)
    below = (tree.parents[row] == nodes[:, None]) & tree.valid[row]
    values = tree.log_value[row].double()
    confidence = (values - values[nodes][:, None]).exp()
    likeliest = confidence.masked_fill(~below, -1.0).argmax(dim=1)
    best = torch.zeros_like(below).scatter_(1, likeliest[:, None], True)
    outcome = tree.tokens[row] == target[:, None]
    return confidence[below], outcome[below], best[below]


def expected_tokens(step: Step, row: int = 0) -> float:
    """What the values of the tree promise: 1 for the bonus token and the sum over draft tokens."""
    real = step.tree.valid[row, 1:]
    return 1 + float(step.tree.log_value[row, 1:][real].double().exp().sum())


@dataclass
class Reliability:
    """Confidences and what came of them.

    Attributes:
        confidences: probabilities, in pieces ``[m]``.
        outcomes: whether it happened, in pieces ``[m]`` bool.
    """

    confidences: list[Tensor] = field(default_factory=list)
    outcomes: list[Tensor] = field(default_factory=list)

    def add(self, confidence: Tensor, outcome: Tensor) -> None:
        """Take in more of them.

        Raises:
            ValueError: a confidence that is no probability.
        """
        confidence = confidence.double().cpu()
        if len(confidence) and not -_ROUNDING <= confidence.min() <= confidence.max() <= (
            1 + _ROUNDING
        ):
            raise ValueError(
                f"confidences from {confidence.min():.3g} to {confidence.max():.3g} are no "
                "probabilities: this policy's values cannot be checked against outcomes"
            )
        self.confidences.append(confidence.clamp(0, 1))
        self.outcomes.append(outcome.cpu())

    def summary(self, bins: int = BINS) -> dict[str, Any]:
        """The curve over ``bins`` bins of equal width, and what it comes to.

        Returns:
            ``count``; ``ece``, the distance of confidence and rate of outcomes in a bin, weighted
            by its count; ``bias``, the mean of confidence - outcome, positive if overconfident;
            ``brier`` and ``log_loss`` (in nats), means; ``curve``, a list over bins with ``low``,
            ``high``, ``count`` and the means ``confidence`` and ``rate``, None in an empty bin.
            Figures are None without anything to count.
        """
        c = torch.cat([torch.empty(0, dtype=torch.float64), *self.confidences])
        o = torch.cat([torch.empty(0, dtype=torch.bool), *self.outcomes]).double()
        place = (c * bins).long().clamp(max=bins - 1)
        counts = torch.bincount(place, minlength=bins)
        sums = torch.bincount(place, weights=c, minlength=bins)
        hits = torch.bincount(place, weights=o, minlength=bins)
        curve = [
            {
                "low": index / bins,
                "high": (index + 1) / bins,
                "count": int(count),
                "confidence": float(total / count) if count else None,
                "rate": float(hit / count) if count else None,
            }
            for index, (count, total, hit) in enumerate(zip(counts, sums, hits, strict=True))
        ]
        none = dict.fromkeys(("ece", "bias", "brier", "log_loss"))
        if not len(c):
            return {"count": 0, **none, "curve": curve}
        safe = c.clamp(_LEAST, 1 - _LEAST)
        return {
            "count": len(c),
            "ece": float((sums - hits).abs().sum() / len(c)),
            "bias": float((c - o).mean()),
            "brier": float((c - o).square().mean()),
            "log_loss": float(-torch.where(o > 0, safe.log(), (1 - safe).log()).mean()),
            "curve": curve,
        }
