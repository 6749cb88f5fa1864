"""Tables: next-token laws that are written down beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The log-weight of a token of probability 0: finite, so that the lm_head makes no NaN of it, and
# so low that exp gives exactly 0, after any temperature up to 10 too.
NEVER = -1e4
LARGEST = 6


@dataclass(frozen=True)
class Table:
    """Next-token laws that depend on the last ``order`` tokens.

    Attributes:
        size: tokens V, 2 to 6.
        order: 0, 1 or 2.
        weights: laws as unnormalised weights, V each; context number c uses law c modulo their
            number, so that one law is a model without memory.
    """

    size: int
    order: int
    weights: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not 2 <= self.size <= LARGEST or self.order not in (0, 1, 2):
            raise ValueError(f"a table has 2 to {LARGEST} tokens and order 0 to 2, not {self}")
        for law in self.weights:
            if len(law) != self.size or min(law) < 0 or sum(law) <= 0:
                raise ValueError(f"{law} is no law over {self.size} tokens")

    def log_probs(self) -> Tensor:
        """``[V + 1, V, V]`` float64: by the token before the last (V: there is none), the last."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        laws = (weights / weights.sum(dim=1, keepdim=True)).log().clamp(min=NEVER)
        before, last = torch.meshgrid(
            torch.arange(self.size + 1), torch.arange(self.size), indexing="ij"
        )
        context = (torch.zeros_like(last), last, last * (self.size + 1) + before)[self.order]
        return laws[context % len(laws)]

    def after(self, prefixes: Tensor) -> Tensor:
        """The log-probabilities ``[n, V]`` after ``prefixes [n, S]`` int64, S at least 1."""
        alone = torch.full_like(prefixes[:, 0], self.size)
        before = prefixes[:, -2] if prefixes.shape[1] > 1 else alone
        return self.log_probs()[before, prefixes[:, -1]]

    def __repr__(self) -> str:
        laws = ", ".join(":".join(f"{w:g}" for w in law) for law in self.weights)
        return f"<V={self.size} order={self.order} weights {laws}>"
