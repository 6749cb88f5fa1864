"""Speculative decoding with specdec, in place of transformers' own ``generate``."""

from typing import Any

from specdec.hf import generate as speculative


def generate(model: Any, **arguments: Any) -> Any:
    """``model.generate`` with the arguments of ``specdec.Engine`` beside its own: ``strategy``,
    ``drafter``, ``options`` and the others."""
    return speculative(model, **arguments)
