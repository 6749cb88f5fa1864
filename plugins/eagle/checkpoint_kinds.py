"""Kinds of checkpoints that are no EAGLE-1/2 head, told apart by config and keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

_ONLY = "the drafter 'eagle' reads heads of EAGLE-1 and EAGLE-2"
_EAGLE3 = re.compile(
    r"^(model\.)?(midlayer\.|d2t$|t2d$|fc_norm\.|input_norm\.|mask_hidden$"
    r"|layers\.\d+\.hidden_norm\.)"
)
_HYDRA = re.compile(r"(^|\.)hydra_|prefix_embed")
_MEDUSA = re.compile(r"(^|\.)medusa_head|^\d+\.\d+\.(linear\.)?weight$")
_ADAPTER = re.compile(r"\.lora_[AB]\.|^base_model\.model\.")
_WHOLE = re.compile(r"^(model|transformer|gpt_neox)\.(decoder\.)?(embed_|layers\.|h\.|wte\.)")
# What speculators, which has a format for many methods, calls its own.
_SPECULATORS = {
    "eagle3": "an EAGLE-3 head",
    "peagle": "a P-EAGLE head",
    "dflash": "a DFlash drafter",
    "eagle": "an EAGLE-1 head in the format of speculators",
    "mlp": "an MLP speculator",
    "medusa": "a set of Medusa heads",
    "hydra": "a set of Hydra heads",
}


def other_kind(fields: Mapping[str, Any], keys: Collection[str]) -> str:
    """The kind of a checkpoint and what to do with it, as the end of a sentence; empty if it may
    be an EAGLE-1/2 head.

    Args:
        fields: of its ``config.json``.
        keys: of its tensors; none where they are not known yet.
    """
    kind = _by_config(fields) or _by_keys(keys)
    if kind == "a whole language model":
        return f"{kind}, no head: strategy='draft_model' drafts with it"
    return f"{kind}: {_ONLY}" if kind else ""


def _by_config(fields: Mapping[str, Any]) -> str:
    architectures = str(fields.get("architectures") or "").lower()
    named = fields.get("speculators_model_type")
    if named is not None:
        return _SPECULATORS.get(str(named), f"a draft head of the kind {named!r}")
    if any(name in fields for name in ("hydra_num_heads", "hydra_num_layers", "hydra_head_arch")):
        return "a set of Hydra heads"
    if any(name in fields for name in ("medusa_num_heads", "medusa_num_layers")):
        return "a set of Medusa heads"
    if "eagle3" in architectures or "draft_vocab_size" in fields or "eagle_config" in fields:
        return "an EAGLE-3 head"
    for name in ("medusa", "hydra"):
        if name in architectures or fields.get("model_type") == name:
            return f"a set of {name.title()} heads"
    if "dflash" in architectures:
        return "a DFlash drafter"
    return ""


def _by_keys(keys: Collection[str]) -> str:
    found = {
        "an EAGLE-3 head": _EAGLE3,
        "a set of Hydra heads": _HYDRA,
        "a set of Medusa heads": _MEDUSA,
        "an adapter (LoRA)": _ADAPTER,
    }
    for kind, pattern in found.items():
        if any(pattern.search(key) for key in keys):
            return kind
    fusion = {"fc.weight", "model.fc.weight"} & set(keys)
    if not fusion and any(_WHOLE.search(key) for key in keys):
        return "a whole language model"
    return ""
