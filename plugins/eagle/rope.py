"""Rotary position embeddings as heads' configs describe them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from specdec.errors import CheckpointError

# What the published configs leave out means this, never the target's value.
THETA = 10000.0
# The kinds that are supported, and what each needs.
_NEEDED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": ("factor",),
}
_NUMBERS = {
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
}
_LAYER_TYPES = ("full_attention", "sliding_attention")


def rope_parameters(
    fields: Mapping[str, Any], layer_types: Collection[str] = ("full_attention",)
) -> dict[str, Any]:
    """transformers' ``rope_parameters`` of a head.

    Args:
        fields: of the config, with ``rope_parameters``, or ``rope_scaling`` and ``rope_theta``.
        layer_types: of the head's layers, where there may be a rope for each.

    Raises:
        CheckpointError: values that are not allowed or contradict each other; a kind of rope that
            is not supported: those whose frequencies change with the length of the text would make
            drafts depend on other rows of the batch.
    """
    found = {
        name: _read(name, _of_layers(name, fields.get(name), layer_types), fields)
        for name in ("rope_parameters", "rope_scaling")
        if fields.get(name) or name == "rope_scaling"
    }
    ropes = [found[name] for name in found if fields.get(name)] or list(found.values())
    if any(rope != ropes[0] for rope in ropes):
        said = ", ".join(f"{name}={fields[name]}" for name in found)
        raise CheckpointError(f"config.json contradicts itself: {said}; take one of them out")
    return ropes[0]


def _of_layers(name: str, given: Any, layer_types: Collection[str]) -> Mapping[str, Any]:
    """The rope of the head's layers, where each type of layer may have one."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise CheckpointError(f"config.json: {name}={given!r} is no JSON object")
    if not any(kind in given for kind in _LAYER_TYPES):
        return given
    ropes = [given.get(kind) for kind in sorted(layer_types)]
    if not isinstance(ropes[0], Mapping) or any(rope != ropes[0] for rope in ropes):
        raise CheckpointError(
            f"config.json has {name}={dict(given)}: a head has one rope for all its layers, which "
            f"are of the type {', '.join(sorted(layer_types))}"
        )
    return ropes[0]


def _read(name: str, given: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in given.items() if value is not None}
    kind = said.get("rope_type") or said.get("type") or "default"
    if kind == "mrope":
        # Text has one position in all three dimensions, so it is the default rope.
        kind = "default"
        said = {key: value for key, value in said.items() if key == "rope_theta"}
    if kind not in _NEEDED:
        raise CheckpointError(
            f"config.json: rope of the type {kind!r} is not supported, only {', '.join(_NEEDED)}; "
            'up to the length that the head was trained with, "dynamic" equals "default": set it '
            "there for texts that are no longer"
        )
    partial = said.get("partial_rotary_factor", fields.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise CheckpointError(
            f"config.json: partial_rotary_factor={partial} is not supported: heads rotate all "
            "channels"
        )
    if fields.get("rope_theta") is not None:
        said.setdefault("rope_theta", fields["rope_theta"])
    said.setdefault("rope_theta", THETA)
    for key in (*_NEEDED[kind], *sorted(_NUMBERS & said.keys())):
        if not _positive(said.get(key)):
            raise CheckpointError(
                f"config.json has {key}={said.get(key)!r} for a rope of the type {kind!r}: it must "
                "be a number above 0"
            )
    found = {key: value for key, value in said.items() if key not in ("type", "rope_type")}
    return {**found, "rope_type": kind, "rope_theta": float(said["rope_theta"])}


def _positive(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0
