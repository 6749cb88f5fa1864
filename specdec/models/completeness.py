"""Completeness of a loaded checkpoint: no weight is missing, none was left unused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from specdec.errors import CheckpointError
from specdec.models.checkpoint_weights import listed

# Buffers that older versions of transformers saved, and scales of a quantised cache, which
# decoding here does not use.
_HARMLESS = re.compile(
    r"(\.inv_freq|\.masked_bias|\.(attn|attention|self_attn)\.bias|position_ids|causal_mask"
    r"|\.[qkv]_scale)$"
)
# Parts beside the layers or the lm_head that text does not go through: vision and sound, heads
# that predict further tokens, values or classes.
_APART = re.compile(
    r"vision|visual|image|img|video|audio|speech|talker|token2wav|code2wav|vqmodel|mm_|multi_?modal"
    r"|projector|language_projection|connector|aligner|resampler|qformer|query_tokens|patch_merger"
    r"|mtp|nextn|medusa|extra_heads|^v_head|value_head|^score|classifier|reward|pooler|qa_outputs"
    r"|^cls$|^(mlp1|vpm|apm|tts|version)$"
)
_PEFT = "base_model.model."


def check_complete(folder: Path, model: PreTrainedModel, info: Mapping[str, Any]) -> None:
    """Refuse a model some of whose weights are random, or that is not the one of the checkpoint.

    A tensor of the checkpoint that the model has no place for means another model if it belongs
    to a layer or a part that the model has (a bias, a norm, an adapter, a layer more), or stands
    beside its layers or its lm_head. Parts that text does not go through (vision towers, value
    heads, heads that predict further tokens) are not read, and harmless.

    Args:
        info: what ``from_pretrained(..., output_loading_info=True,
            ignore_mismatched_sizes=True)`` returns.

    Raises:
        CheckpointError: with the names of the tensors.
    """
    kind = type(model).__name__
    if mismatched := sorted(tuple(each) for each in info.get("mismatched_keys") or ()):
        shapes = [f"{key} {list(given)}, not {list(own)}" for key, given, own in mismatched]
        raise CheckpointError(
            f"{folder} has weights of other shapes than its config.json says for a {kind}: "
            f"{listed(shapes)}. The two belong to different models"
        )
    if missing := sorted(info.get("missing_keys") or ()):
        hint = ""
        if missing == ["lm_head.weight"]:
            hint = " (a base model or a classifier, saved without its lm_head?)"
        raise CheckpointError(
            f"{folder} lacks weights of a {kind}, which would be random: {listed(missing)}{hint}. "
            "Give the complete checkpoint of a causal language model"
        )
    modules = dict(model.named_modules())
    trunk = _trunk(model, modules)
    unexpected = sorted(info.get("unexpected_keys") or ())
    if foreign := [key for key in unexpected if _belongs(key, modules, trunk)]:
        raise CheckpointError(
            f"{folder} has weights that a {kind} with this config.json does not use, though they "
            f"belong to its parts: {listed(foreign)}. It would decode another model's text: check "
            "config.json, and merge adapters into the weights"
        )
    if errors := list(info.get("error_msgs") or ()):
        raise CheckpointError(f"{folder} cannot be loaded: {errors[0]}")


def _trunk(model: PreTrainedModel, modules: Mapping[str, nn.Module]) -> set[str]:
    """Names of the modules that the embedding of tokens lies in; the model's own is empty."""
    try:
        embedding = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embedding = None  # such a model is refused later, with its name
    place = next((name for name, module in modules.items() if module is embedding), "").split(".")
    return {".".join(place[:size]) for size in range(len(place))}


def _belongs(key: str, modules: Mapping[str, nn.Module], trunk: Collection[str]) -> bool:
    """Whether a tensor that was not used belongs to a part that the model has, or beside it."""
    if _HARMLESS.search(key):
        return False
    path = key.removeprefix(_PEFT).split(".")
    owner, child = next(
        (name, path[size])
        for size in range(len(path) - 1, -1, -1)
        if (name := ".".join(path[:size])) in modules
    )
    module = modules[owner]
    if isinstance(module, nn.ModuleList):
        return True  # a layer more than the config says
    if owner in trunk:
        return not _APART.search(child)
    is_leaf = next(module.children(), None) is None
    inside_layer = any(part.isdigit() for part in owner.split("."))
    return is_leaf or inside_layer
