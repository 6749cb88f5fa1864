"""The relative error between two computations of the same values, and its tolerance by dtype."""

from __future__ import annotations

import torch
from torch import Tensor

# Largest root-mean-square error of a compiled network, relative to the spread of the values.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative error that rounding in ``dtype`` explains."""
    return _TOLERANCE.get(dtype, 6e-2)


def relative_errors(ours: Tensor, reference: Tensor) -> Tensor:
    """Root-mean-square differences along the last dimension, by the spread of the whole reference.

    Args:
        ours, reference: ``[..., C]``.

    Returns:
        ``[...]`` float64.
    """
    ours, reference = ours.double(), reference.double()
    spread = (reference - reference.mean(dim=-1, keepdim=True)).square().mean().sqrt()
    return (ours - reference).square().mean(dim=-1).sqrt() / spread.clamp(min=1e-12)


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """The largest of :func:`relative_errors`."""
    return float(relative_errors(ours, reference).max())
