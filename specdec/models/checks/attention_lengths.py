"""Lengths of a text at which a model's attention may change, read from its config."""

from __future__ import annotations

import re
from collections.abc import Iterator

from transformers import PretrainedConfig

# Numbers that say how large or how many something is, not how far attention reaches.
_SIZES = re.compile(
    r"(num|n|pretraining|tie|rope|mrope|bos|eos|pad|sep|unk|cls|mask)_.*"
    r"|.*(hidden_size|intermediate_size|vocab_size|ffn_size|_dim|_dims|_rank|_id|_ids|_token_index"
    r"|_theta|_layers|_heads|_experts|_tok|_head_dim|_size_mlp|_size_per_layer_input)"
    r"|hidden_size.*|vocab_size.*|head_dim|d_model|d_ff|d_kv|d_inner|ffn_dim|kv_channels"
    r"|query_pre_attn_scalar|max_position_embeddings|beta_fast|beta_slow|factor|attention_factor"
    r"|per_layer_config|max_window_layers|initializer_range|laurel_rank|altup_.*|first_k_dense.*"
)
_REACHES = re.compile(r"window|local|chunk|span|block|length|context|sparse|top_?k|history|memory")


def attention_lengths(config: PretrainedConfig, context: int) -> list[int]:
    """Every whole number in a text config that may be a window, a chunk or another such length.

    Known sizes (channels, heads, layers, tokens) are left out, whatever else there is counts: a
    window need not be called one.

    Args:
        config: of the text model.
        context: the most tokens of a sequence; what is no shorter is of no effect.

    Returns:
        Lengths in increasing order.
    """
    found = set(_numbers("", config.to_dict()))
    return sorted(number for number in found if 1 < number < context)


def _numbers(name: str, value: object) -> Iterator[int]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(str(key), inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(name, inner)
    elif type(value) is int and (_REACHES.search(name) or not _SIZES.fullmatch(name)):
        yield value
