"""The config of a head's decoder layers, in transformers' names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from specdec.errors import CheckpointError
from specdec_plugins.eagle.config_fields import DecoderFields
from specdec_plugins.eagle.layouts import Family
from specdec_plugins.eagle.rope import rope_parameters

_SAME = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "rms_norm_eps",
    "hidden_act",
    "max_position_embeddings",
)


def has_midlayer(written: Collection[str]) -> bool:
    """Whether the first layer is called so: the code that reads such heads knows one layer, without
    windows, and reads its biases off the tensors, whatever the config has copied from the target.

    Args:
        written: names of tensors as the checkpoint has them.
    """
    return any(key.removeprefix("model.").startswith("midlayer.self_attn") for key in written)


def decoder_config(
    given: DecoderFields, inner: Mapping[str, Any], family: Family, written: Collection[str]
) -> dict[str, Any]:
    """The config of the decoder layers, rope and windows among it.

    Args:
        given: its fields; ``inner`` has those of rope as well.
        written: names of tensors as the checkpoint has them.

    Raises:
        CheckpointError: windows or a rope that are not supported or contradict each other.
    """
    midlayer = family == "eagle3" and has_midlayer(written)
    found = {name: getattr(given, name) for name in _SAME}
    if given.model_type == "llama4_text" and given.intermediate_size_mlp:
        found["intermediate_size"] = given.intermediate_size_mlp
    found["num_hidden_layers"] = layers = 1 if midlayer else given.num_hidden_layers
    found["num_key_value_heads"] = given.num_key_value_heads or given.num_attention_heads
    found["head_dim"] = given.width
    windows = {} if midlayer else _windows(given, inner.get("max_window_layers"), layers, family)
    kinds = set(windows.get("layer_types", ["full_attention"]))
    return {**found, "rope_parameters": rope_parameters(inner, kinds), **windows}


def _windows(given: DecoderFields, before: Any, layers: int, family: Family) -> dict[str, Any]:
    """Layer types and window, where a layer has one; ``before``: how many layers have none."""
    types, window = given.layer_types or [], given.sliding_window
    if given.use_sliding_window and not types and not (type(before) is int and before >= layers):
        raise CheckpointError(
            f"config.json has use_sliding_window=True, max_window_layers={before!r} and no "
            "layer_types: say by layer_types which layers have windows, or use_sliding_window=false"
        )
    if "sliding_attention" not in types or given.use_sliding_window is False:
        return {}
    if family == "eagle":
        if len(types) != layers:
            return {}  # those of the target
        raise CheckpointError(
            "config.json has layer_types with sliding_attention: an EAGLE-1/2 head with windows is "
            "not supported"
        )
    if len(types) != layers:
        raise CheckpointError(
            f"config.json has layer_types for {len(types)} layers, the head has {layers}: if they "
            "were copied from the target, take them out"
        )
    if unknown := sorted(set(types) - {"full_attention", "sliding_attention"}):
        raise CheckpointError(f"config.json has layers of type {unknown[0]!r}")
    if window is None or window < 1:
        raise CheckpointError(
            f"config.json has sliding_window={window!r}, and layers of type sliding_attention"
        )
    return {"layer_types": list(types), "sliding_window": window}
