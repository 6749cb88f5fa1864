"""Flags of heads' configs: those that are supported, those that change nothing, and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from specdec.errors import CheckpointError
from specdec_plugins.eagle.config_fields import DecoderFields
from specdec_plugins.eagle.layouts import FAMILIES, Family, Layout, decoder_fields

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
    "has_lm_head",  # seen in the tensors
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
_INNER = "transformer_layer_config."
# What the layout of speculators calls its decoder layers, and the types of configs for them.
_ARCHITECTURES = (None, "auto", "LlamaDecoderLayer")
LLAMA = {"llama"}
QWEN3 = {"qwen3", "qwen3_vl", "qwen3_vl_text", "qwen3vl"}
# The config of decoder layers there: what is read of it,
_OF_LAYERS = {
    *DecoderFields.model_fields,
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "partial_rotary_factor",
    "max_window_layers",
} - {"intermediate_size_mlp"}
# and what transformers writes besides, into any config: of training, of files, of generation.
_NOT_OF_LAYERS = {
    "_attn_implementation_autoset",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",  # of the head's target
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
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
    known = {*_REQUIRED, *_SUPPORTED, *_HARMLESS, "eagle_decoder_type"}
    _refuse_unknown("eagle_config.", eagle, known)
    if layout == "speculators":
        _refuse_unknown("", fields, {*_SPECULATORS, *_REQUIRED})
        _check_layers(family, fields, inner)


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
    _refuse_unknown(_INNER, inner, {*_OF_LAYERS, *_NOT_OF_LAYERS, *_REQUIRED})
    if inner.get("use_sliding_window") and not inner.get("layer_types"):
        layers, before = inner.get("num_hidden_layers") or 1, inner.get("max_window_layers", 28)
        if not isinstance(before, int) or before < layers:
            raise CheckpointError(
                f"config.json has {_INNER}use_sliding_window=True, max_window_layers={before!r} "
                "and no layer_types: say by layer_types which layers have windows"
            )


def _refuse_unknown(where: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in sorted(given.keys() - set(known)):
        if given[name] is not None:  # false and 0 may turn off what is on by default
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
