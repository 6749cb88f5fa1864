"""Small configs of every architecture that docs/models.md names: the list there is made from these.

Windows are shorter than the prompts that the tests decode, and contexts hold them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

VOCAB = 60
_NONE: dict[str, Any] = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}
_BASE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": VOCAB,
    "initializer_range": 0.3,
    **_NONE,
}
_MHA: dict[str, Any] = {**_BASE, "intermediate_size": 64, "max_position_embeddings": 128}
_GQA: dict[str, Any] = {**_MHA, "num_key_value_heads": 2}
_GPT: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "vocab_size": VOCAB,
    "n_positions": 128,
    "initializer_range": 0.3,
    **_NONE,
}
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_WINDOW: dict[str, Any] = {"sliding_window": 9}
_GEMMA: dict[str, Any] = {**_GQA, **_WINDOW, "head_dim": 8, "tie_word_embeddings": False}
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
_MLA: dict[str, Any] = {
    **_GQA,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

Config = Callable[[], Any]
# By model type; a dash and a word where one has several forms.
ARCHITECTURES: dict[str, Config] = {
    "cohere": lambda: hf.CohereConfig(**_GQA),
    "cohere2": lambda: hf.Cohere2Config(**_GQA, **_WINDOW, layer_types=_ALTERNATING),
    "deepseek_v3": lambda: hf.DeepseekV3Config(**_MLA),
    "falcon": lambda: hf.FalconConfig(**_BASE, max_position_embeddings=128),
    "falcon-grouped": lambda: hf.FalconConfig(
        **_BASE, max_position_embeddings=128, new_decoder_architecture=True, num_kv_heads=2
    ),
    "gemma": lambda: hf.GemmaConfig(**_GQA, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**_GEMMA, layer_types=_ALTERNATING),
    "gemma3": lambda: hf.Gemma3Config(
        text_config={**_GEMMA, "layer_types": _ALTERNATING},
        vision_config=_VISION,
        mm_tokens_per_image=4,
        image_token_index=59,
        boi_token_index=57,
        eoi_token_index=58,
        tie_word_embeddings=False,
    ),
    "gemma3_text": lambda: hf.Gemma3TextConfig(**_GEMMA, layer_types=_ALTERNATING),
    "glm4": lambda: hf.Glm4Config(**_GQA, head_dim=8),
    "gpt2": lambda: hf.GPT2Config(**_GPT),
    "gpt_bigcode": lambda: hf.GPTBigCodeConfig(**_GPT),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**_MHA),
    "gpt_oss": lambda: hf.GptOssConfig(
        **_GQA, **_WINDOW, head_dim=8, num_local_experts=4, layer_types=_ALTERNATING
    ),
    "gptj": lambda: hf.GPTJConfig(**_GPT, rotary_dim=4),
    "granite": lambda: hf.GraniteConfig(**_GQA, logits_scaling=2.0),
    "llama": lambda: hf.LlamaConfig(**_GQA),
    "mistral": lambda: hf.MistralConfig(**_GQA, **_WINDOW),
    "mixtral": lambda: hf.MixtralConfig(**_GQA, **_WINDOW, num_local_experts=4),
    "olmo2": lambda: hf.Olmo2Config(**_GQA),
    "olmo3": lambda: hf.Olmo3Config(**_GQA, **_WINDOW, layer_types=_ALTERNATING),
    "opt": lambda: hf.OPTConfig(
        **_BASE, ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=128, init_std=0.3
    ),
    "phi": lambda: hf.PhiConfig(**_GQA),
    "phi3": lambda: hf.Phi3Config(**_GQA, **_WINDOW),
    "qwen2": lambda: hf.Qwen2Config(**_GQA),
    "qwen2-window": lambda: hf.Qwen2Config(
        **_GQA, **_WINDOW, use_sliding_window=True, max_window_layers=1
    ),
    "qwen2_moe": lambda: hf.Qwen2MoeConfig(**_GQA, **_EXPERTS, shared_expert_intermediate_size=32),
    "qwen3": lambda: hf.Qwen3Config(**_GQA, head_dim=8),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(**_GQA, **_EXPERTS, head_dim=8),
    "smollm3": lambda: hf.SmolLM3Config(**_GQA),
    "stablelm": lambda: hf.StableLmConfig(**_GQA),
    "starcoder2": lambda: hf.Starcoder2Config(**_GQA, **_WINDOW),
}


def make_model(name: str, seed: int = 0) -> hf.PreTrainedModel:
    """A random model of that architecture, in float64."""
    config = ARCHITECTURES[name]()
    kind = hf.Gemma3ForConditionalGeneration if name == "gemma3" else hf.AutoModelForCausalLM
    make = kind._from_config if name == "gemma3" else kind.from_config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(config, experts_implementation="eager")
    model.generation_config.eos_token_id = None
    made: hf.PreTrainedModel = model.double().eval()
    return made


def listed() -> str:
    """The list of architectures in docs/models.md: model types, with what their test covers."""
    return ", ".join(f"`{kind}`" for kind in sorted({name.split("-")[0] for name in ARCHITECTURES}))
