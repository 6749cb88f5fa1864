"""The layouts that EAGLE heads are published in, told apart by config and tensor names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from specdec.errors import CheckpointError

Family = Literal["eagle", "eagle3"]
Layout = Literal[
    "official",
    "specforge",
    "speculators",
    "modelopt",
    "angelslim",
    "deepspec",
    "nemo",
    "vllm",
]
# What a checkpoint is called in messages and reports.
FAMILIES: dict[Family, str] = {"eagle": "EAGLE-1/2", "eagle3": "EAGLE-3"}


def recognise(fields: Mapping[str, Any], keys: Collection[str]) -> Layout:
    """The layout of a head.

    Args:
        fields: of its ``config.json``.
        keys: of its tensors, as they are written.
    """
    names = " ".join(map(str, fields.get("architectures") or ()))
    if fields.get("speculators_model_type") is not None:
        return "speculators"
    if any(key.startswith("model.") for key in keys):
        return "nemo"
    if "Qwen3Eagle3Model" in names or "target_layer_ids" in fields:
        return "deepspec"
    if "Eagle3LlamaForCausalLM" in names:
        return "angelslim"
    if any(key.startswith("midlayer.") for key in keys):
        return "specforge" if "LlamaForCausalLMEagle3" in names else "official"
    if "LlamaForCausalLMEagle3" in names:
        return "modelopt"
    eagle3 = any(key.endswith("hidden_norm.weight") for key in keys)
    return "vllm" if eagle3 else "official"


def decoder_fields(layout: Layout, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the config that describes the decoder layers.

    Raises:
        CheckpointError: none where the layout has it.
    """
    if layout != "speculators":
        return dict(fields)
    inner = fields.get("transformer_layer_config")
    if not isinstance(inner, Mapping):
        raise CheckpointError(
            f"config.json has transformer_layer_config={inner!r}: in the layout of speculators it "
            "holds the config of the decoder layers"
        )
    return dict(inner)
