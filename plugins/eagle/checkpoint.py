"""Loading and saving EAGLE-1/2 heads in the published checkpoint format, unchanged."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

from specdec.errors import CheckpointError
from specdec.models.checkpoints import read_json, read_weights, resolve_checkpoint
from specdec.models.hf_target import HFTarget
from specdec_plugins.eagle.checkpoint_kinds import other_kind
from specdec_plugins.eagle.head import EagleHead

# What the published configs leave out means this, never the target's value.
_DEFAULTS = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "max_position_embeddings": 2048}
_ROPE_THETA = 10000.0
_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
_EMBEDDING = "embed_tokens.weight"


def load_head(checkpoint: str | Path, target: HFTarget) -> EagleHead:
    """Read a head from a folder or a hub id and check that it fits the target.

    Args:
        checkpoint: a folder with ``config.json`` and ``model.safetensors`` or
            ``pytorch_model.bin`` (read with ``weights_only``) or their shards, or a hub id.

    Raises:
        CheckpointError: files missing, corrupt or unsafe; a checkpoint of another kind, which is
            named; a hidden size or vocabulary that is not the target's; missing or unexpected keys,
            or keys of the wrong shape, each named.
    """
    folder = resolve_checkpoint(checkpoint, what="EAGLE head")
    fields = read_json(folder / "config.json")
    _refuse_other_kinds(folder, fields, ())
    weights = read_weights(folder)
    _refuse_other_kinds(folder, fields, weights)
    _check_sizes(folder, fields)
    check_fit(f"in {folder}", fields, target)
    bias = fields.get("bias", True)
    config = _config(folder, fields)
    head = EagleHead(config, fc_bias=bias, own_embedding=_EMBEDDING in weights)
    _check_keys(folder, head, weights, fc_bias=bias)
    head.to(weights["fc.weight"].dtype).load_state_dict(weights, strict=True)
    return head.to(device=target.device, dtype=target.dtype).eval()


def save_head(head: EagleHead, folder: Path) -> None:
    """Write a head in the published format: ``config.json`` and ``model.safetensors``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = head.config
    fields = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bias": head.fc.bias is not None,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "qkv_bias": config.attention_bias,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "rope_parameters": config.rope_parameters,
        "head_dim": config.head_dim,
        "hidden_act": config.hidden_act,
        "max_position_embeddings": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    weights = {k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _config(folder: Path, fields: dict[str, Any]) -> LlamaConfig:
    known = {
        name: fields[name]
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "num_hidden_layers",
            "head_dim",
            "vocab_size",
            *_DEFAULTS,
        )
        if fields.get(name) is not None
    }
    rope = fields.get("rope_parameters") or {
        **(fields.get("rope_scaling") or {"rope_type": "default"}),
        "rope_theta": fields.get("rope_theta") or _ROPE_THETA,
    }
    try:
        return LlamaConfig(
            **{**_DEFAULTS, "num_hidden_layers": 1, **known},
            attention_bias=bool(fields.get("qkv_bias", False)),
            rope_parameters=rope,
        )
    except Exception as error:
        raise CheckpointError(f"{folder / 'config.json'} is no head's config: {error}") from error


def _refuse_other_kinds(folder: Path, fields: dict[str, Any], keys: Collection[str]) -> None:
    if kind := other_kind(fields, keys):
        raise CheckpointError(f"the checkpoint in {folder} is {kind}")


def check_fit(which: str, fields: dict[str, Any], target: HFTarget) -> None:
    """Refuse a head for another target.

    Args:
        which: head this is, for the error: ``"in <folder>"``.

    Raises:
        CheckpointError: another hidden size or vocabulary than the target's.
    """
    for name, own in (("hidden_size", target.hidden_size), ("vocab_size", target.vocab_size)):
        given = fields.get(name)
        if given != own:
            raise CheckpointError(
                f"the head {which} has {name} {given}, the target model has {own}: a head "
                "works only with the model that it was trained for"
            )


def _check_sizes(folder: Path, fields: dict[str, Any]) -> None:
    for name in _SIZES:
        if not isinstance(fields.get(name), int):
            raise CheckpointError(
                f"{folder / 'config.json'} has {name}={fields.get(name)!r}: it must be a number"
            )


def _check_keys(
    folder: Path, head: EagleHead, weights: dict[str, torch.Tensor], fc_bias: bool
) -> None:
    expected = {name: tuple(t.shape) for name, t in head.state_dict().items()}
    problems = []
    if missing := sorted(expected.keys() - weights.keys()):
        problems.append(f"missing keys: {', '.join(missing)}")
    if extra := sorted(weights.keys() - expected.keys()):
        problems.append(f"unexpected keys: {', '.join(extra)}")
    problems += [
        f"{name} has shape {list(weights[name].shape)}, not {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if not problems:
        return
    hint = ""
    if ("fc.bias" in weights) != fc_bias:
        hint = (
            f'. config.json says "bias": {str(fc_bias).lower()} (a missing entry means true); '
            "it decides whether fc.bias is expected"
        )
    raise CheckpointError(f"the head in {folder} is no EAGLE-1/2 head: {'; '.join(problems)}{hint}")
