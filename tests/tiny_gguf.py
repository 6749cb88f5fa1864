"""Tiny Llama models written as GGUF files, as llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from tokenizers.pre_tokenizers import ByteLevel

# A vocabulary of single bytes, a merge, and three special tokens.
NEWLINE = "Ċ"
TOKENS = [*sorted(ByteLevel.alphabet()), NEWLINE * 2, "<|bos|>", "<|eos|>", "<|eot|>"]
EOS, EOT = TOKENS.index("<|eos|>"), TOKENS.index("<|eot|>")
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def make_model() -> Any:
    """A random Llama in float32 whose vocabulary is :data:`TOKENS`."""
    config = tiny.llama_config(vocab_size=len(TOKENS), eos_token_id=EOS, bos_token_id=EOS - 1)
    return tiny.make_model(config).float()


def write(
    path: Path,
    model: Any,
    *,
    kind: str = "F32",
    architecture: str = "llama",
    tokenizer: bool = True,
    without: str = "",
    eos: Any = EOS,
    eot: Any = EOT,
) -> Path:
    """Write the model and return the path.

    Args:
        kind: how matrices are stored: F32, F16, BF16, Q8_0 or Q4_1; vectors are F32.
        without: a tensor that is left out.
        eos: what stands for the id of the end of a text.
        eot: what stands for the id of the end of a turn.
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(TOKENS)
        special = gguf.TokenType.CONTROL
        writer.add_token_types([special if "|" in t[1:] else gguf.TokenType.NORMAL for t in TOKENS])
        writer.add_token_merges([f"{NEWLINE} {NEWLINE}"])
        writer.add_bos_token_id(EOS - 1)
        for name, end in (("eos", eos), ("eot", eot)):
            kind_of_end = gguf.GGUFValueType.get_type(end)
            if type(end) is int and end >= 0:
                kind_of_end = gguf.GGUFValueType.UINT32
            writer.add_key_value(f"tokenizer.ggml.{name}_token_id", end, kind_of_end)
        writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for key, weight in model.state_dict().items():
        name = names.get_name(key, try_suffixes=(".weight",))
        if name == without or (key == "lm_head.weight" and config.tie_word_embeddings):
            continue
        for part, count in heads.items():
            if part in key:  # llama.cpp interleaves the halves that rope turns
                halves = weight.reshape(count, 2, -1, weight.shape[1])
                weight = halves.swapaxes(1, 2).reshape(weight.shape)
        data = weight.to(torch.float32).numpy()
        stored = gguf.GGMLQuantizationType[kind if data.ndim > 1 else "F32"]
        writer.add_tensor(name, np.array(gguf.quants.quantize(data, stored)), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
