"""What tensors and config of an EAGLE-3 checkpoint say of the head beyond its decoder layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from specdec.errors import CheckpointError
from specdec_plugins.eagle.aux_layers import read_aux_layers
from specdec_plugins.eagle.decoder_config import has_midlayer
from specdec_plugins.eagle.description import HeadDescription
from specdec_plugins.eagle.flags import QWEN3, flag
from specdec_plugins.eagle.layouts import Layout
from specdec_plugins.eagle.overrides import Overrides

ATTENTION = ("q_proj", "k_proj", "v_proj")
_MLP = ("gate_proj", "up_proj", "down_proj")


def as_eagle3(
    head: HeadDescription,
    fields: Mapping[str, Any],
    inner: Mapping[str, Any],
    written: Collection[str],
    weights: Mapping[str, Tensor],
    overrides: Overrides,
) -> HeadDescription:
    """The description of an EAGLE-3 head, from one that has its family, layout and decoder.

    Args:
        fields: of its ``config.json``.
        inner: the part of them that describes the decoder layers.
        written: the names of its tensors as the checkpoint has them.
        weights: its tensors under canonical names.
        overrides: what to believe rather than the config.

    Raises:
        CheckpointError: flags that contradict each other or the tensors, or are of the wrong type.
    """
    layout = head.layout
    use_aux = flag(fields, "use_aux_hidden_state") is not False
    aux = read_aux_layers(fields, use_aux=use_aux, given=overrides.aux_layers)
    width = fields.get("target_hidden_size") or inner["hidden_size"]
    ambiguous = []
    residual = overrides.norm_before_residual
    if residual is None:
        residual = flag(fields, "norm_before_residual")
    if residual is None and layout != "speculators":
        residual = False
        ambiguous.append("norm_before_residual")
    output, final = _norms(layout, fields, overrides, ambiguous)
    said_for_certain = ("option", "features", *(["indices"] if layout == "speculators" else []))
    if aux.source not in said_for_certain:
        ambiguous.append("aux_layers")
    qwen3 = inner.get("model_type") in QWEN3 and layout in ("speculators", "deepspec")
    return replace(
        head,
        target_hidden_size=width,
        draft_vocab_size=fields.get("draft_vocab_size") or inner["vocab_size"],
        qk_norm=qwen3 or _any(weights, ".q_norm.weight", ".k_norm.weight"),
        biases=_biases(layout, fields, {} if has_midlayer(written) else inner, weights),
        states=_states(weights, width, fields, aux.states),
        aux=aux,
        fc=use_aux,
        norm_before_fc=_said_or_seen(flag(fields, "norm_before_fc"), weights, "input_norm.weight"),
        fc_norm=_said_or_seen(flag(fields, "fc_norm"), weights, "fc_norm.0.weight"),
        norm_before_residual=residual,
        norm_output=output,
        final_norm=final,
        unused_norm=not final
        and "norm.weight" in weights
        and flag(fields, "use_last_layernorm") is not False,
        ambiguous=tuple(ambiguous),
    )


def _norms(
    layout: Layout, fields: Mapping[str, Any], overrides: Overrides, ambiguous: list[str]
) -> tuple[bool, bool]:
    """Whether what is fed back is normed, and whether what the lm_head reads is.

    In SpecForge's own configs ``norm_output``, at the top level, says the second.
    """
    top = fields.get("norm_output")
    output, final = overrides.norm_output, overrides.final_norm
    own = layout in ("specforge", "modelopt") and top is not None
    if final is None and layout == "specforge" and top is not None:
        final = flag({"norm_output": top}, "norm_output")
    if final is None:
        final = flag(fields, "use_last_layernorm") is not False
    if output is None:
        said = {**fields, "norm_output": None} if own else fields
        output = flag(said, "norm_output", "return_hidden_post_norm")
        if own or output is None:
            ambiguous.append("norm_output")
    return bool(output), final


def _biases(
    layout: Layout,
    fields: Mapping[str, Any],
    inner: Mapping[str, Any],
    weights: Mapping[str, Tensor],
) -> frozenset[str]:
    """Linear layers with a bias: as the config says, else as the tensors show."""
    said: dict[str, bool | None] = dict.fromkeys((*ATTENTION, "o_proj", *_MLP, "fc", "lm_head"))
    said["fc"] = fields.get("fusion_bias") if layout == "speculators" else inner.get("bias")
    attention = inner.get("qkv_bias")
    if attention is None:
        attention = inner.get("attention_bias")
    said |= dict.fromkeys(ATTENTION, attention)
    said |= dict.fromkeys(_MLP, inner.get("mlp_bias"))
    if attention is False:
        said["o_proj"] = False
    return frozenset(
        name
        for name, value in said.items()
        if (_any(weights, f".{name}.bias", f"{name}.bias") if value is None else value)
    )


def _states(
    weights: Mapping[str, Tensor], width: int, fields: Mapping[str, Any], named: int
) -> int:
    """How many hidden states ``fc`` reads."""
    fc, name = weights.get("fc.weight"), "num_aux_hidden_states"
    said: int | None = fields.get(name)
    if fc is None or fc.dim() != 2 or not fc.shape[1] or fc.shape[1] % width:
        return said or named
    read = int(fc.shape[1]) // width
    for where, given in (("", fields), ("eagle_config.", fields.get("eagle_config") or {})):
        if given.get(name) not in (None, read):
            raise CheckpointError(
                f"config.json has {where}{name}={given[name]!r}, and fc.weight reads {read} states "
                f"of {width} channels"
            )
    return read


def _said_or_seen(said: bool | None, weights: Mapping[str, Tensor], name: str) -> bool:
    return name in weights if said is None else said


def _any(weights: Mapping[str, Tensor], *endings: str) -> bool:
    return any(name.endswith(endings) for name in weights)
