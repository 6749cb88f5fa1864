"""How far two computations of the same values are apart, and how far they may be."""

from __future__ import annotations

import torch
from torch import Tensor

# Largest root-mean-square error allowed, relative to the spread of the values. Rounding stays well
# below it; one wrong mask entry or position is well above.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative error that rounding in ``dtype`` explains."""
    return _TOLERANCE.get(dtype, 6e-2)


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """The largest root-mean-square difference along the last dimension, by the reference's spread.

    Args:
        ours, reference: ``[..., C]``.
    """
    ours, reference = ours.double(), reference.double()
    spread = (reference - reference.mean(dim=-1, keepdim=True)).square().mean().sqrt()
    difference = (ours - reference).square().mean(dim=-1).sqrt().max()
    return float(difference / spread.clamp(min=1e-12))
