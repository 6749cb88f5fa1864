"""A categorical distribution over the vocabulary, one per row, with point masses kept as tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float64 if it is, in float32 otherwise."""
    return x if x.dtype == torch.float64 else x.float()


def likeliest(logits: Tensor) -> Tensor:
    """The first of the largest of ``logits [..., V]``: ``[...]`` int64."""
    # On a CPU argmax is slow in 16 bits. Elsewhere it is not, and a copy of all logits is memory.
    return (at_least_float32(logits) if logits.device.type == "cpu" else logits).argmax(dim=-1)


@dataclass(frozen=True)
class Distribution:
    """One categorical distribution per row; of draft distributions one per row and node.

    Attributes:
        weights: ``[B, V]`` floating point log-weights, ``-inf`` off the support. None for a point
            mass that never had any.
        point: ``[B]`` int64, the only token of the support where the distribution is a point mass
            (temperature 0); None otherwise.
        size: the vocabulary size V.
    """

    weights: Tensor | None
    point: Tensor | None
    size: int

    @classmethod
    def of(cls, weights: Tensor) -> Distribution:
        """The distribution proportional to ``exp(weights)``, ``[B, V]``."""
        return cls(weights=weights, point=None, size=weights.shape[-1])

    @classmethod
    def at(cls, point: Tensor, size: int) -> Distribution:
        """The point mass at ``point``, ``[B]`` int64."""
        return cls(weights=None, point=point, size=size)

    @property
    def probs(self) -> Tensor:
        """Probabilities ``[B, V]``: the dtype of the weights, float32 for a point mass."""
        if self.weights is None:
            assert self.point is not None
            return torch.nn.functional.one_hot(self.point, self.size).float()
        return torch.softmax(self.weights, dim=-1)
