"""The name under which a module takes its cache: transformers has changed it within version 5."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from torch import nn

_NAMES = ("cache", "past_key_values")  # the second before 5.24


def cache_keyword(kind: type[nn.Module]) -> str:
    """The argument of a module's forward that is its cache; of one that hands on whatever it is
    given, the one that transformers' own models have."""
    known: Any = kind
    return _read(known)


@cache
def _read(kind: Any) -> str:
    from transformers import LlamaModel

    own, usual = (inspect.signature(each.forward).parameters for each in (kind, LlamaModel))
    return next(name for named in (own, usual) for name in _NAMES if name in named)
