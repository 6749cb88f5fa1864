"""The factors between the lm_head and the logits are those that the model's own class applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from tiny import PROMPTS, VOCAB

from specdec import Engine

_TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 32,
}


def _around(kind: str, **text: Any) -> dict[str, Any]:
    within = {"model_type": kind, **_TEXT, **text}
    return {"vision_config": _VISION, "text_config": within, "image_token_index": VOCAB - 1}


# The model, and whether its class applies the factor that its text config has.
MODELS: dict[str, tuple[Callable[[], Any], bool]] = {
    "AyaVision leaves out logit_scale": (
        lambda: hf.AyaVisionForConditionalGeneration(
            hf.AyaVisionConfig(**_around("cohere2", logit_scale=0.25))
        ),
        False,
    ),
    "Llava leaves out logits_scaling": (
        lambda: hf.LlavaForConditionalGeneration(
            hf.LlavaConfig(**_around("granite", logits_scaling=4.0))
        ),
        False,
    ),
    "PaliGemma applies the cap": (
        lambda: hf.PaliGemmaForConditionalGeneration(
            hf.PaliGemmaConfig(**_around("gemma2", final_logit_softcapping=2.0), projection_dim=32)
        ),
        True,
    ),
    "Cohere2 applies logit_scale": (
        lambda: hf.Cohere2ForCausalLM(hf.Cohere2Config(logit_scale=0.25, **_TEXT)),
        True,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_factors_are_applied_where_the_model_applies_them(name: str) -> None:
    make, applies = MODELS[name]
    torch.manual_seed(0)
    model = make().double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    engine = Engine(model, strategy="lookup")
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0, "eos_token_id": []}
    got = tiny.tokens(engine, PROMPTS[0], **settings)
    assert got == tiny.greedy_reference(model, PROMPTS[0], 12)
    hidden = torch.randn(1, 3, 32, dtype=torch.float64)
    head = model.get_output_embeddings()
    with torch.no_grad():
        changes = not torch.equal(engine.target.logits(hidden), head(hidden))
    assert changes == applies
