"""A network on inputs of another dtype than its weights, which stay as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CastToWeightDtype(nn.Module):
    """Runs a network in its own dtype, for callers that compute in another.

    Where weights are sharded or lie elsewhere until they are used, a copy in another dtype would
    have to be laid out in the same way.

    Args:
        network: what runs.
        dtype: of its weights.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._network, self._dtype = network, dtype

    def forward(self, hidden: Tensor) -> Tensor:
        outputs: Tensor = self._network(hidden.to(self._dtype))
        return outputs.to(hidden.dtype)
