"""Reading a head's checkpoint: from files to a description and tensors of canonical names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from specdec.errors import CheckpointError
from specdec.models.checkpoints import read_json, read_weights, resolve_checkpoint
from specdec_plugins.eagle.description import HeadDescription
from specdec_plugins.eagle.eagle3_description import ATTENTION, as_eagle3
from specdec_plugins.eagle.flags import check_flags
from specdec_plugins.eagle.keys import Names, renamed
from specdec_plugins.eagle.kinds import other_kind
from specdec_plugins.eagle.layouts import Family, Layout, decoder_fields, recognise
from specdec_plugins.eagle.rope import rope_parameters

# What the published configs leave out means this, never the target's value.
_DEFAULTS = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "max_position_embeddings": 2048}
_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
_OPTIONAL = ("num_key_value_heads", "head_dim", *_DEFAULTS)


@dataclass(frozen=True)
class HeadCheckpoint:
    """A head as it lies in a folder.

    Attributes:
        folder: where.
        fields: of its ``config.json``.
        weights: its tensors under canonical names, as they are, on the CPU.
        names: what the checkpoint itself calls them.
        description: what it says of itself.
    """

    folder: Path
    fields: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    names: Names
    description: HeadDescription


def read_head(checkpoint: str | Path) -> HeadCheckpoint:
    """Read a head from a folder or a hub id; whether it fits a target is not looked at yet.

    Args:
        checkpoint: a folder with ``config.json`` and ``model.safetensors`` or
            ``pytorch_model.bin`` (read with ``weights_only``) or their shards, or a hub id.

    Raises:
        CheckpointError: files missing, corrupt or unsafe; a checkpoint of another kind, which is
            named; a config that lacks sizes or has flags that are not supported, each named.
    """
    folder = resolve_checkpoint(checkpoint, what="EAGLE head")
    fields = read_json(folder / "config.json")
    _refuse_other_kinds(folder, fields, {})
    weights = read_weights(folder)
    _refuse_other_kinds(folder, fields, weights)
    try:
        own = renamed(weights)
        description = _describe(fields, weights, own)
    except CheckpointError as error:
        raise CheckpointError(f"the head in {folder}: {error}") from error
    return HeadCheckpoint(folder, fields, own, Names(weights), description)


def _refuse_other_kinds(
    folder: Path, fields: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    if kind := other_kind(fields, weights):
        raise CheckpointError(f"the checkpoint in {folder} is {kind}")


def _describe(
    fields: Mapping[str, Any], written: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> HeadDescription:
    layout = recognise(fields, written)
    inner = decoder_fields(layout, fields)
    family = _family(fields, inner, weights)
    decoder = _decoder(inner, family, written, weights)
    plain = HeadDescription(
        family=family,
        layout=layout,
        decoder=decoder,
        target_hidden_size=decoder["hidden_size"],
        draft_vocab_size=decoder["vocab_size"],
        own_embedding="embed_tokens.weight" in weights,
    )
    if family == "eagle":
        return replace(plain, biases=_biases(layout, fields))
    check_flags(layout, fields)
    return as_eagle3(plain, fields, inner, weights)


def _family(
    fields: Mapping[str, Any], inner: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> Family:
    """By the tensors, and by the config where those that tell are missing."""
    named = fields.get("speculators_model_type")
    if named is not None:
        return "eagle3" if named == "eagle3" else "eagle"
    query, hidden = weights.get("layers.0.self_attn.q_proj.weight"), inner.get("hidden_size")
    if any(name.endswith(".hidden_norm.weight") for name in weights):
        return "eagle3"
    if query is not None and query.dim() == 2 and query.shape[1] == 2 * int(hidden or 0):
        return "eagle3"
    says = "eagle3" in str(fields.get("architectures")).lower()
    says = says or any(name in fields for name in ("draft_vocab_size", "eagle_config"))
    return "eagle3" if says or "d2t" in weights else "eagle"


def _decoder(
    inner: Mapping[str, Any],
    family: Family,
    written: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Config of the decoder layers."""
    for name in _SIZES:
        if not isinstance(inner.get(name), int):
            raise CheckpointError(
                f"config.json has {name}={inner.get(name)!r}: it must be a number"
            )
    layers = inner.get("num_hidden_layers") or 1
    if family == "eagle3" and any(
        key.removeprefix("model.").startswith("midlayer.self_attn") for key in written
    ):
        layers = 1  # the name has room for one, and configs often say the target's number
    known = {name: inner[name] for name in _OPTIONAL if inner.get(name) is not None}
    sizes = {name: inner[name] for name in _SIZES}
    if inner.get("model_type") == "llama4_text" and inner.get("intermediate_size_mlp"):
        sizes["intermediate_size"] = inner["intermediate_size_mlp"]
    found = {**_DEFAULTS, **known, **sizes, "num_hidden_layers": layers}
    found.setdefault("num_key_value_heads", found["num_attention_heads"])
    found.setdefault("head_dim", found["hidden_size"] // found["num_attention_heads"])
    found["rope_parameters"] = rope_parameters(inner)
    return {**found, **(_windows(inner, layers) if family == "eagle3" else {})}


def _windows(inner: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Layer types and window, where a layer has one."""
    types, window = inner.get("layer_types") or [], inner.get("sliding_window")
    if "sliding_attention" not in types:
        return {}
    if len(types) != layers:
        raise CheckpointError(
            f"config.json has layer_types for {len(types)} layers, the head has {layers}"
        )
    if unknown := sorted(set(types) - {"full_attention", "sliding_attention"}):
        raise CheckpointError(f"config.json has layers of type {unknown[0]!r}")
    if not isinstance(window, int) or window < 1:
        raise CheckpointError(
            f"config.json has sliding_window={window!r}, and layers of type sliding_attention"
        )
    return {"layer_types": list(types), "sliding_window": window}


def _biases(layout: Layout, fields: Mapping[str, Any]) -> frozenset[str]:
    if layout == "speculators":
        return frozenset({"fc"} if fields.get("fusion_bias") else ())
    fc = fields.get("bias", True)  # a missing entry means true
    return frozenset((["fc"] if fc else []) + (list(ATTENTION) if fields.get("qkv_bias") else []))
