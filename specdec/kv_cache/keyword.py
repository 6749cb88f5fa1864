"""The name under which a module takes its cache: transformers has changed it within version 5."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import nn

_NAMES = ("cache", "past_key_values")  # the second before 5.24


def cache_keyword(kind: type[nn.Module]) -> str:
    """The argument of a module's forward that is its cache."""
    known: Any = kind
    return _read(known)


@cache
def _read(kind: Any) -> str:
    parameters = inspect.signature(kind.forward).parameters
    return next((name for name in _NAMES if name in parameters), _NAMES[0])
