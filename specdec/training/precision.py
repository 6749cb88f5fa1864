"""The precision of forwards in training: float32, or bfloat16 on weights of float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def precision_of(asked: str, device: torch.device) -> torch.dtype:
    """The precision that a setting means.

    Args:
        asked: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 where the device computes in
            it.
    """
    if asked != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[asked]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    try:
        fast = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        fast = False
    return torch.bfloat16 if fast else torch.float32


def dtype_within(device: torch.device, otherwise: torch.dtype) -> torch.dtype:
    """The dtype that matrices are multiplied in here; ``otherwise`` outside of autocast.

    A frozen matrix is best kept in it: autocast would convert it anew for every product.
    """
    if not torch.is_autocast_enabled(device.type):
        return otherwise
    return torch.get_autocast_dtype(device.type)


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Within, matrices are multiplied in ``precision`` if that is bfloat16."""
    if precision != torch.bfloat16:
        return nullcontext()
    return torch.autocast(device.type, precision)
