"""Flags of EAGLE-3 configs: those that are supported, those that change nothing, and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from specdec.errors import CheckpointError
from specdec_plugins.eagle.layouts import FAMILIES, Family, Layout

# In eagle_config, or beside it. What is required of those that would change the computation.
_REQUIRED = {
    "use_input_layernorm_in_first_layer": True,
    "use_mtp_layernorm": False,
    "next_layer_regular": True,
    "parallel_draft_step": 1,
    "eh_proj_before_attn": False,
    "logit_scale": 1.0,
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
}
# The top level of a config in the layout of speculators.
_SPECULATORS = {
    "architectures",
    "auto_map",
    "draft_vocab_size",
    "dtype",
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
    "tie_word_embeddings",
    "torch_dtype",
    "transformer_layer_architecture",
    "transformer_layer_config",
    "transformers_version",
    "_name_or_path",
}


def check_flags(layout: Layout, family: Family, fields: Mapping[str, Any]) -> None:
    """Refuse flags under which a head would compute something else than is computed here.

    Raises:
        CheckpointError: with the flag's name.
    """
    eagle = fields.get("eagle_config") or {}
    if (quantised := fields.get("quantization_config")) is not None:
        raise CheckpointError(
            f"config.json has quantization_config={quantised!r}: quantised heads are not "
            "supported; give the head in float32, bfloat16 or float16"
        )
    required_of = {**_REQUIRED, **(_REQUIRED_OF_EAGLE if family == "eagle" else {})}
    for where, given in (("", fields), ("eagle_config.", eagle)):
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
    known = {*_REQUIRED, *_SUPPORTED, *_HARMLESS, "eagle_decoder_type"}
    _refuse_unknown("eagle_config.", eagle, known)
    if layout == "speculators":
        _refuse_unknown("", fields, {*_SPECULATORS, *_REQUIRED})


def _refuse_unknown(where: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in sorted(given.keys() - set(known)):
        if given[name] not in (None, False):
            raise CheckpointError(
                f"config.json has {where}{name}={given[name]!r}, which specdec does not know: the "
                "head may compute something else than it would here. If it is of no account, take "
                "it out"
            )


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
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name}={value}" for name, value in found.items())
        raise CheckpointError(f"config.json contradicts itself: {said}")
    return next(iter(found.values()), None)
