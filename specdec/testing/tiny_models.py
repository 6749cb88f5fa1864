"""Small random transformers models in float64, made in milliseconds, and drafts that fit them.

A target's text varies and depends on its context, and its drafters are right about half of the
time: with drafts that are never accepted, equality with plain decoding would say nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor

VOCAB = 60
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
# Smaller than a tree is deep, so that a window cuts the paths of the tree too.
WINDOW: dict[str, Any] = {"sliding_window": 2}
_GPT2: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": VOCAB,
    "n_positions": 128,
    "initializer_range": 0.3,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
# By name: grouped-query attention, biases, norms of queries and keys, learned positions, a window
# on every layer, windows on alternate layers with capped logits.
CONFIGS: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**SHAPE),
    "qwen2": lambda: hf.Qwen2Config(**SHAPE),
    "qwen3": lambda: hf.Qwen3Config(**SHAPE, head_dim=8),
    "gpt2": lambda: hf.GPT2Config(**_GPT2),
    "mistral-window": lambda: hf.MistralConfig(**SHAPE, **WINDOW),
    "gemma2": lambda: hf.Gemma2Config(**SHAPE, **WINDOW, head_dim=8, tie_word_embeddings=False),
}


def make_model(
    config: hf.PretrainedConfig,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **kwargs: Any,
) -> hf.PreTrainedModel:
    """A random causal language model whose next token depends mostly, not only, on the last one.

    Args:
        kwargs: of ``AutoModelForCausalLM.from_config``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.AutoModelForCausalLM.from_config(config, **kwargs)
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    with torch.no_grad():
        if head is not embedding:
            scaled = config.model_type.startswith("gemma")  # it multiplies embeddings by sqrt(H)
            embedding *= 10 / config.hidden_size**0.5 if scaled else 10
            head *= 2
    made: hf.PreTrainedModel = model.to(dtype).eval()
    return made


def noisy_copy(
    model: hf.PreTrainedModel, amount: float = 0.05, seed: int = 1
) -> hf.PreTrainedModel:
    """A draft model that often agrees with ``model``: its weights with noise."""
    generator = torch.Generator().manual_seed(seed)
    draft = copy.deepcopy(model)
    with torch.no_grad():
        for weight in draft.parameters():
            if weight.dim() > 1:
                noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                weight += amount * weight.std() * noise
    return draft


@torch.no_grad()
def bigrams(model: hf.PreTrainedModel) -> Tensor:
    """The model's distributions after a single token: ``[V + 1, V, V]`` as
    :meth:`Table.log_probs`."""
    size = model.get_output_embeddings().weight.shape[0]
    distributions: Tensor = (
        model(torch.arange(size)[:, None]).logits[:, -1].double().log_softmax(dim=-1)
    )
    return distributions.expand(size + 1, -1, -1)
