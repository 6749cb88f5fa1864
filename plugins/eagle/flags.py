"""Flags of heads' configs: those that are supported, those that change nothing, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specdec.errors import CheckpointError
from specdec.models.heads.unknown_entries import refuse_unknown
from specdec_plugins.eagle.config_fields import DecoderFields, HeadFields, check_agreement
from specdec_plugins.eagle.layouts import FAMILIES, Family, Layout, decoder_fields

# In eagle_config, or beside it. What is required of those that would change the computation.
_REQUIRED = {
    "use_input_layernorm_in_first_layer": True,
    "use_mtp_layernorm": False,
    "next_layer_regular": True,
    "parallel_draft_step": 1,
    "eh_proj_before_attn": False,
    "logit_scale": 1.0,
    "use_cla": False,
    "use_rotary_pos_emb": True,
    "norm_type": "rms",
}
# Of EAGLE-3, and nothing that an EAGLE-1/2 head could have.
_REQUIRED_OF_EAGLE = dict.fromkeys(
    ("norm_before_fc", "norm_before_residual", "norm_output", "return_hidden_post_norm", "fc_norm"),
    False,
)
_SUPPORTED = {
    "eagle_aux_hidden_state_layer_ids",
    "use_aux_hidden_state",
    "use_last_layernorm",
    "norm_before_fc",
    "norm_before_residual",
    "norm_output",
    "return_hidden_post_norm",
    "fc_norm",
    "num_aux_hidden_states",
}
# Of training, or of how others run the head.
_HARMLESS = {
    "parallel_draft_heads_num_layers",  # of no account with a parallel_draft_step of 1
    "eagle_base_lora",
    "eagle_freeze_base_model",
    "eagle_hidden_state_distillation",
    "eagle_logit_distillation",
    "eagle_loss_decay_factor",
    "eagle_mix_hidden_states",
    "eagle_offline",
    "eagle_report_acc",
    "eagle_reuse_base_decoder",
    "eagle_self_logit_distillation",
    "eagle_ttt_steps",
    "eagle_use_torch_compile",
    "has_lm_head",  # seen in the tensors
}
# In the layout of speculators: at the top, and in the config of its decoder layers.
_SPECULATORS = {
    "draft_vocab_size",
    "eagle_aux_hidden_state_layer_ids",
    "embed_requires_grad",
    "enable_sp_ulysses",
    "fc_norm",
    "fusion_bias",
    "has_no_defaults_at_init",
    "layernorms",
    "model_type",
    "norm_before_fc",
    "norm_before_residual",
    "norm_output",
    "speculators_config",
    "speculators_model_type",
    "speculators_version",
    "target_hidden_size",
    "target_vocab_size",
    "transformer_layer_architecture",
    "transformer_layer_config",
}
_OF_LAYERS = {
    *DecoderFields.model_fields,
    "max_window_layers",
    "partial_rotary_factor",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
}
# In the other layouts, where both are one and often a copy of the target's config: what is read,
_READ = {*HeadFields.model_fields, *_OF_LAYERS} - {"fusion_bias"}
# and what tools write besides: of training, of the target, of the target's own code.
_OF_TOOLS = {"max_sequence_length", "specdec_inflated_from", "target_model_type"}
_OF_LAYOUT: dict[Layout, set[str]] = {
    "angelslim": {
        "add_classification_head",
        "attention_head_dim",
        "cla_share_factor",
        "class_num",
        "dense_list",
        "modal_type",
        "org_vocab_size",
        "pool_type",
        "use_mrope",
        "use_qk_norm",
    },
    "deepspec": {
        "draft_num_hidden_layers",
        "num_target_layers",
        "step_loss_decay",
        "target_layer_ids",
        "target_model_name_or_path",
        "ttt_length",
    },
}
_INNER = "transformer_layer_config."
_OPTION = "ignore"
# What the layout of speculators calls its decoder layers, and the types of configs for them.
_ARCHITECTURES = (None, "auto", "LlamaDecoderLayer")
LLAMA = {"llama"}
QWEN3 = {"qwen3", "qwen3_vl", "qwen3_vl_text", "qwen3vl"}
# False there, by family: nothing that its head could have.
_FALSE: dict[Family, tuple[str, str]] = {
    "eagle": (_INNER, "mlp_bias"),
    "eagle3": ("", "layernorms"),
}


def check_flags(layout: Layout, family: Family, fields: Mapping[str, Any]) -> None:
    """Refuse flags under which a head would compute something else than is computed here.

    Raises:
        CheckpointError: with the flag's name.
    """
    eagle = fields.get("eagle_config") or {}
    inner = decoder_fields(layout, fields) if layout == "speculators" else {}
    if (quantised := fields.get("quantization_config")) is not None:
        raise CheckpointError(
            f"config.json has quantization_config={quantised!r}: quantised heads are not "
            "supported; give the head in float32, bfloat16 or float16"
        )
    required_of = {**_REQUIRED, **(_REQUIRED_OF_EAGLE if family == "eagle" else {})}
    for where, given in (("", fields), ("eagle_config.", eagle), (_INNER, inner)):
        for name, required in required_of.items():
            if (value := given.get(name)) is not None and value != required:
                raise CheckpointError(
                    f"config.json has {where}{name}={value}: only {required} is supported for an "
                    f"{FAMILIES[family]} head"
                )
    if (kind := eagle.get("eagle_decoder_type")) not in (None, "llama"):
        raise CheckpointError(
            f"config.json has eagle_config.eagle_decoder_type={kind!r}: only 'llama' is supported"
        )
    known = {*_REQUIRED, *_SUPPORTED, *_HARMLESS}
    where, more = "eagle_config.", {"eagle_decoder_type"}
    refuse_unknown(eagle, known | more, where=where, among="flags", option=_OPTION)
    if layout == "speculators":
        known = {*_SPECULATORS, *_REQUIRED}
        refuse_unknown(fields, known, among="config", option=_OPTION)
        _check_layers(family, fields, inner)
    else:
        known |= _READ | _OF_TOOLS | _OF_LAYOUT.get(layout, set())
        refuse_unknown(fields, known, among="copy", option=_OPTION)
        names = ("num_hidden_layers", "draft_num_hidden_layers")
        check_agreement({name: fields.get(name) for name in names})


def _check_layers(family: Family, fields: Mapping[str, Any], inner: Mapping[str, Any]) -> None:
    """Refuse decoder layers of speculators' layout that are none of those computed here."""
    if (named := fields.get("transformer_layer_architecture")) not in _ARCHITECTURES:
        raise CheckpointError(
            f"config.json has transformer_layer_architecture={named!r}: only "
            f"{_ARCHITECTURES[-1]!r} is supported"
        )
    types = LLAMA if family == "eagle" else LLAMA | QWEN3
    if (kind := inner.get("model_type")) is not None and kind not in types:
        raise CheckpointError(
            f"config.json has {_INNER}model_type={kind!r}: an {FAMILIES[family]} "
            f"head has layers of the type {' or '.join(sorted(types))}"
        )
    where, name = _FALSE[family]
    if (value := (inner if where else fields).get(name)) not in (None, False):
        raise CheckpointError(
            f"config.json has {where}{name}={value!r}: only False is supported for an "
            f"{FAMILIES[family]} head"
        )
    known = {*_OF_LAYERS, *_REQUIRED} - {"intermediate_size_mlp"}
    refuse_unknown(inner, known, where=_INNER, among="config", option=_OPTION)
    sizes = {"target_vocab_size": fields.get("target_vocab_size")}
    check_agreement(sizes | {f"{_INNER}vocab_size": inner.get("vocab_size")})


def flag(fields: Mapping[str, Any], *names: str) -> bool | None:
    """A flag by any of its names, in ``eagle_config`` or beside it; None where it is not said.

    Raises:
        CheckpointError: no boolean, or said twice, and differently.
    """
    eagle = fields.get("eagle_config") or {}
    found = {
        f"{where}{name}": given[name]
        for where, given in (("eagle_config.", eagle), ("", fields))
        for name in names
        if given.get(name) is not None
    }
    for name, value in found.items():
        if not isinstance(value, bool):
            raise CheckpointError(f"config.json has {name}={value!r}: it must be true or false")
    check_agreement(found)
    return next(iter(found.values()), None)
