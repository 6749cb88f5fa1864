"""Rotary position embeddings as heads' configs describe them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from specdec.errors import CheckpointError
from specdec.models.heads.unknown_entries import refuse_unknown
from specdec_plugins.eagle.config_fields import check_agreement

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
_TRAINED = "original_max_position_embeddings"
# What yarn may have besides.
_YARN = {
    _TRAINED,
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
}
# Of no account: how channels are divided among three dimensions, in all of which text has one
# position; whether the target was trained further with it.
_IDLE = {"mrope_section", "mrope_interleaved", "finetuned"}
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
    said = {key: value for key, value in given.items() if value is not None and key not in _IDLE}
    # With one position in all three dimensions mrope is the default rope.
    types = {f"{name}.{key}": said.pop(key, None) for key in ("rope_type", "type")}
    types = {key: "default" if kind == "mrope" else kind for key, kind in types.items()}
    check_agreement(types)
    kind = next(filter(None, types.values()), "default")
    if kind not in list(_NEEDED):
        raise CheckpointError(
            f"config.json: rope of the type {kind!r} is not supported, only {', '.join(_NEEDED)}; "
            'up to the length that the head was trained with, "dynamic" equals "default": set it '
            "there for texts that are no longer"
        )
    inner, outer = said.pop("partial_rotary_factor", None), fields.get("partial_rotary_factor")
    if any(partial not in (None, 1) for partial in (inner, outer)):
        raise CheckpointError(
            f"config.json: partial_rotary_factor={inner if outer in (None, 1) else outer} is not "
            "supported: heads rotate all channels"
        )
    theta = fields.get("rope_theta")
    check_agreement({"rope_theta": theta, f"{name}.rope_theta": said.get("rope_theta")})
    said.setdefault("rope_theta", THETA if theta is None else theta)
    read = {"rope_theta", *_NEEDED[kind], *(_YARN if kind == "yarn" else ())}
    if _TRAINED not in read:  # of no account to other kinds, and neither is a factor of 1
        said.pop(_TRAINED, None)
    if "factor" not in read and said.get("factor") == 1:
        del said["factor"]
    refuse_unknown(said, read, where=f"{name}.", among="flags", option="ignore")
    truncate = said.get("truncate", True)
    if not isinstance(truncate, bool):
        raise CheckpointError(f"config.json has truncate={truncate!r}: it must be true or false")
    for key in (*_NEEDED[kind], *sorted(said.keys() - {"truncate"})):
        if not _positive(said.get(key)):
            raise CheckpointError(
                f"config.json has {key}={said.get(key)!r} for a rope of the type {kind!r}: it must "
                "be a number above 0"
            )
    return {**said, "rope_type": kind, "rope_theta": float(said["rope_theta"])}


def _positive(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0
