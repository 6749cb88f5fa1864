"""Rebinding: what a library has put in the place of a module's ``forward``, on a copy."""

from __future__ import annotations

from collections.abc import Mapping
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn


def rebound(function: FunctionType, copies: Mapping[int, Any]) -> FunctionType:
    """The function on the copies of the modules that it is closed over; a deep copy of a module
    leaves it with the originals.

    Args:
        copies: by the id of the original.
    """

    def copied(value: Any) -> Any:
        if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
            return MethodType(value.__func__, copies.get(id(value.__self__), value.__self__))
        return copies.get(id(value), value) if isinstance(value, nn.Module) else value

    cells = tuple(CellType(copied(cell.cell_contents)) for cell in function.__closure__ or ())
    made = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made
