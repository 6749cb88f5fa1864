"""Entries of heads' ``config.json`` that nobody knows, refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Literal

from transformers import AutoConfig

from specdec.errors import CheckpointError

# What transformers writes into any config, and wrote: of training, of files, of generation.
_IN_ANY_CONFIG = {
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
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
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
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
# A head's config is often a copy of its target's, with a model type of its own. These have most of
# the entries that targets have,
_TARGETS = (
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "granite",
    "granitemoe",
    "deepseek_v3",
    "gpt_oss",
    "llama4_text",
    "smollm3",
)

# and what published configs of targets have besides, for code of their own and for other tools.
_IN_TARGETS = {
    "cache_implementation",
    "ep_size",
    "experts_per_token",
    "for_llm_compressor",
    "initial_context_length",
    "moe_layer_freq",
    "rope_local_base_freq",
    "scoring_func",
    "seq_aux",
    "sliding_window_pattern",
    "topk_method",
    "unsloth_fixed",
}


def refuse_unknown(
    given: Mapping[str, Any],
    known: Collection[str],
    *,
    where: str = "",
    among: Literal["flags", "config", "copy"] = "copy",
    option: str = "",
) -> None:
    """Refuse an entry that may change what a head computes, for all that specdec knows.

    Null is as if it were left out; false and 0 may turn off what is on by default.

    Args:
        given: a JSON object.
        known: its entries that are read, or known to be of no account.
        where: the field of ``config.json`` that the object stands in, with a dot; empty for the
            top.
        among: what else is known: nothing beside ``flags``; in a ``config`` what transformers
            writes into any; in one that may be a ``copy`` of the target's also what targets have.
        option: that takes the names of entries of no account, for the message.

    Raises:
        CheckpointError: the first unknown entry, by name.
    """
    unknown = {name for name, value in given.items() if value is not None} - {*known}
    if among != "flags":
        unknown = {name for name in unknown if not _in_any_config(name)}
    if among == "copy" and unknown:
        types = {str(given.get(name)) for name in ("model_type", "target_model_type")}
        unknown = unknown.difference(_IN_TARGETS, *map(_entries_of, types.union(_TARGETS)))
    for name in sorted(unknown):
        say = f', or give the option {option}=["{where}{name}"]' if option else ""
        raise CheckpointError(
            f"config.json has {where}{name}={given[name]!r}, which specdec does not know: it may "
            f"change what is computed. If it is of no account, take it out{say}"
        )


def _in_any_config(name: str) -> bool:
    # What ends in _id is the number of a token.
    return name in _IN_ANY_CONFIG or name.startswith("_") or name.endswith("_id")


@cache
def _entries_of(kind: str) -> frozenset[str]:
    """What transformers' config of a model type has; nothing if there is no such type."""
    try:
        config = AutoConfig.for_model(kind)
        return frozenset({*config.to_dict(), *config.get_text_config().to_dict()})
    except Exception:
        return frozenset()
