"""Rotary position embeddings as heads' configs describe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specdec.errors import CheckpointError

# What the published configs leave out means this, never the target's value.
THETA = 10000.0
_FIXED = ("default", "linear", "llama3", "yarn")


def rope_parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' ``rope_parameters`` of a head.

    Args:
        fields: of the config, with ``rope_parameters``, or ``rope_scaling`` and ``rope_theta``.

    Raises:
        CheckpointError: a kind of rope that is not supported: those whose frequencies change with
            the length of the text would make drafts depend on other rows of the batch.
    """
    given = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise CheckpointError(f"config.json: rope_scaling={given!r} is no JSON object")
    found = {name: value for name, value in given.items() if name not in ("type", "rope_type")}
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind == "mrope":
        # Text has one position in all three dimensions, so it is the default rope.
        kind = "default"
        found = {}
    if kind not in _FIXED:
        raise CheckpointError(
            f"config.json: rope of the type {kind!r} is not supported, only {', '.join(_FIXED)}; "
            'up to the length that the head was trained with, "dynamic" equals "default": set it '
            "there for texts that are no longer"
        )
    partial = found.get("partial_rotary_factor", fields.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise CheckpointError(
            f"config.json: partial_rotary_factor={partial} is not supported: heads rotate all "
            "channels"
        )
    theta = given.get("rope_theta") or fields.get("rope_theta") or THETA
    return {**found, "rope_type": kind, "rope_theta": float(theta)}
