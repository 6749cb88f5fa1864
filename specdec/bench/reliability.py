"""Whether confidences are probabilities: reliability curve, calibration error, proper scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

BINS = 20
_LEAST = 1e-6  # a certain miss has an infinite log loss
_ROUNDING = 1e-4


def _zeros() -> list[Any]:
    return [0] * BINS


@dataclass
class Reliability:
    """Confidences and what came of them, added up in bins of equal width.

    Attributes:
        counts: confidences, by bin.
        confidences: their sums, by bin.
        outcomes: how often it happened, by bin.
        brier, log_loss: sums of the two scores, the second in nats.
        outside: confidences that are no probabilities; they are in no bin.
    """

    counts: list[int] = field(default_factory=_zeros)
    confidences: list[float] = field(default_factory=_zeros)
    outcomes: list[int] = field(default_factory=_zeros)
    brier: float = 0.0
    log_loss: float = 0.0
    outside: int = 0

    def add(self, confidence: Tensor, outcome: Tensor) -> None:
        """Take in more of them.

        Args:
            confidence: ``[m]``, probabilities.
            outcome: ``[m]`` bool, whether it happened.
        """
        c, o = confidence.double().cpu(), outcome.double().cpu()
        fits = (c >= -_ROUNDING) & (c <= 1 + _ROUNDING)
        self.outside += int((~fits).sum())
        c, o = c[fits].clamp(0, 1), o[fits]
        place = (c * BINS).long().clamp(max=BINS - 1)
        sums = [torch.bincount(place, weights, BINS) for weights in (None, c, o)]
        self.counts = _added(self.counts, map(int, sums[0].tolist()))
        self.confidences = _added(self.confidences, sums[1].tolist())
        self.outcomes = _added(self.outcomes, map(int, sums[2].tolist()))
        safe = c.clamp(_LEAST, 1 - _LEAST)
        self.brier += float((c - o).square().sum())
        self.log_loss -= float(torch.where(o > 0, safe.log(), (1 - safe).log()).sum())

    def merge(self, other: Reliability) -> None:
        """Take in all of another."""
        self.counts = _added(self.counts, other.counts)
        self.confidences = _added(self.confidences, other.confidences)
        self.outcomes = _added(self.outcomes, other.outcomes)
        self.brier += other.brier
        self.log_loss += other.log_loss
        self.outside += other.outside

    def summary(self) -> dict[str, Any]:
        """The curve, and what it comes to.

        Returns:
            ``count``; ``ece``, the expected calibration error: the distance of confidence and rate
            of outcomes in a bin, weighted by its count; ``bias``, the mean of confidence - outcome,
            positive if overconfident; ``brier`` and ``log_loss`` (in nats), means; ``outside``, how
            many were no probabilities; ``curve``, a list over bins with ``low``, ``high``,
            ``count`` and the means ``confidence`` and ``rate``, None in an empty bin. Figures are
            None without anything to count, and where something was no probability.
        """
        bins = list(zip(self.counts, self.confidences, self.outcomes, strict=True))
        curve = [
            {
                "low": index / BINS,
                "high": (index + 1) / BINS,
                "count": count,
                "confidence": total / count if count else None,
                "rate": hits / count if count else None,
            }
            for index, (count, total, hits) in enumerate(bins)
        ]
        n = sum(self.counts)
        found: dict[str, Any] = {"count": n, "outside": self.outside, "curve": curve}
        if not n or self.outside:
            return {**found, **dict.fromkeys(("ece", "bias", "brier", "log_loss"))}
        return {
            **found,
            "ece": sum(abs(total - hits) for _, total, hits in bins) / n,
            "bias": (sum(self.confidences) - sum(self.outcomes)) / n,
            "brier": self.brier / n,
            "log_loss": self.log_loss / n,
        }


def _added(ours: list[Any], theirs: Iterable[Any]) -> list[Any]:
    return [one + other for one, other in zip(ours, theirs, strict=True)]
