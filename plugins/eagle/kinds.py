"""Kinds of checkpoints that are no EAGLE head, told apart by config and keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

_ONLY = "specdec reads heads of EAGLE-1, EAGLE-2 and EAGLE-3 there"
_EAGLE3 = re.compile(r"(^|\.)(midlayer|hidden_norm)\.|^(model\.)?d2t$")
_PEAGLE = re.compile(r"(^|\.)mask_hidden$")
_HYDRA = re.compile(r"(^|\.)hydra_|prefix_embed")
_MEDUSA = re.compile(r"(^|\.)medusa_head|^\d+\.\d+\.(linear\.)?weight$")
_ADAPTER = re.compile(r"\.lora_[AB]\.|^base_model\.model\.")
_MLA = re.compile(r"\.(kv_a_proj_with_mqa|kv_b_proj|q_[ab]_proj)\.")
_LAYERNORMS = re.compile(r"(embed(ding)?|pre_lm_head|lm_head|hidden)_layernorm\.")
_WHOLE = re.compile(r"^(model|transformer|gpt_neox)\.(decoder\.)?(embed_|layers\.|h\.|wte\.)")
# What speculators, which has a format for many methods, calls its own.
_SPECULATORS = {
    "peagle": "a P-EAGLE head",
    "dflash": "a DFlash drafter",
    "mlp": "an MLP speculator",
    "mlp_speculator": "an MLP speculator",
    "medusa": "a set of Medusa heads",
    "hydra": "a set of Hydra heads",
}
_MODEL = "a whole language model, no head"
_EXTRA_NORMS = "an EAGLE-1 head with additional layer norms (speculators' layernorms)"


def other_kind(fields: Mapping[str, Any], keys: Collection[str]) -> str:
    """The kind of a checkpoint and what to do with it, as the end of a sentence; empty if it may
    be an EAGLE head.

    Args:
        fields: of its ``config.json``.
        keys: of its tensors; none where they are not known yet.
    """
    kind = _by_config(fields) or _by_keys(keys)
    then = "strategy='draft_model' drafts with it" if kind.startswith(_MODEL) else _ONLY
    return f"{kind}: {then}" if kind else ""


def _by_config(fields: Mapping[str, Any]) -> str:
    architectures = str(fields.get("architectures") or "").lower()
    named = fields.get("speculators_model_type")
    if named not in (None, "eagle", "eagle3"):
        return _SPECULATORS.get(str(named), f"a draft head of the kind {named!r}")
    if named == "eagle" and fields.get("layernorms"):
        return _EXTRA_NORMS
    if any(name in fields for name in ("hydra_num_heads", "hydra_num_layers", "hydra_head_arch")):
        return "a set of Hydra heads"
    if any(name in fields for name in ("medusa_num_heads", "medusa_num_layers")):
        return "a set of Medusa heads"
    for name in ("medusa", "hydra"):
        if name in architectures or fields.get("model_type") == name:
            return f"a set of {name.title()} heads"
    if "dflash" in architectures or "sample_from_anchor" in fields:
        return "a DFlash drafter"
    if "mlpspeculator" in architectures or fields.get("model_type") == "mlp_speculator":
        return "an MLP speculator"
    if "eagle3deepseek" in architectures:
        return "an EAGLE-3 head with latent attention (MLA)"
    if any(fields.get(name) is not None for name in ("pard_token", "ptd_token_id")):
        return "a head that drafts several tokens in parallel (P-EAGLE, PARD)"
    return ""


def _by_keys(keys: Collection[str]) -> str:
    """The kind, and the first key that tells."""
    bare = [key for key in keys if "layers." not in key]
    eagle3 = any(_EAGLE3.search(key) for key in keys)
    fusion = any(key.endswith(("fc.weight", "fusion_fc.weight")) for key in keys)
    found: dict[str, tuple[re.Pattern[str], Collection[str]]] = {
        "a P-EAGLE head": (_PEAGLE, keys),
        "an EAGLE-3 head with latent attention (MLA)": (_MLA, keys),
        "a set of Hydra heads": (_HYDRA, keys),
        "a set of Medusa heads": (_MEDUSA, keys),
        "an adapter (LoRA)": (_ADAPTER, keys),
        _EXTRA_NORMS: (_LAYERNORMS, bare if fusion and not eagle3 else ()),
        _MODEL: (_WHOLE, () if fusion or eagle3 else keys),
    }
    for kind, (pattern, among) in found.items():
        if first := next(filter(pattern.search, sorted(among)), ""):
            return f"{kind} (it has {first})"
    return ""
