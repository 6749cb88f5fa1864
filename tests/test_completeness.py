"""A checkpoint that is not the whole model, or not this model, is refused by the tensor's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tiny import PROMPTS

from specdec import Engine
from specdec.errors import CheckpointError

LAYER = "model.layers.0."


def weights(**changes: torch.Tensor | None) -> Callable[[Path], None]:
    """Set tensors (``__`` stands for a dot); None removes one."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        for name, value in changes.items():
            tensors[name.replace("__", ".")] = value
        kept = {k: v for k, v in tensors.items() if v is not None}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a missing weight": (
        weights(model__layers__0__mlp__up_proj__weight=None),
        "lacks weights .*: model.layers.0.mlp.up_proj.weight",
    ),
    "no lm_head": (weights(lm_head__weight=None), "lm_head.weight .*saved without its lm_head"),
    "fewer layers than the config says": (config(num_hidden_layers=4), "lacks .*18 in all"),
    "more layers than the config says": (config(num_hidden_layers=1), r"does not use.*layers\.1\."),
    "another shape": (
        weights(model__layers__0__mlp__up_proj__weight=torch.zeros(3, 32)),
        r"up_proj.weight \[3, 32\], not \[64, 32\]",
    ),
    "a bias that the config does not have": (
        weights(model__layers__0__self_attn__q_proj__bias=torch.zeros(32)),
        "q_proj.bias",
    ),
    "a norm that the architecture does not have": (
        weights(model__layers__1__self_attn__q_norm__weight=torch.zeros(8)),
        "q_norm.weight",
    ),
    "an adapter that was not merged": (
        weights(model__layers__1__self_attn__q_proj__lora_A__weight=torch.zeros(2, 32)),
        "merge adapters",
    ),
    "an adapter under the names of PEFT": (
        weights(
            base_model__model__model__layers__0__self_attn__q_proj__lora_A__weight=torch.zeros(2, 8)
        ),
        "lora_A.*merge adapters",
    ),
    "a norm behind the embedding": (
        weights(model__embed_norm__weight=torch.zeros(32)),
        "model.embed_norm.weight",
    ),
    "positions beside the layers": (
        weights(model__embed_positions__weight=torch.zeros(9, 32)),
        "model.embed_positions.weight",
    ),
    "a norm beside the lm_head": (
        weights(lm_head_norm__weight=torch.zeros(32)),
        "lm_head_norm.weight",
    ),
    "a tensor of the whole model": (weights(logit_bias=torch.zeros(60)), "logit_bias"),
}
ACCEPTED: dict[str, Callable[[Path], None]] = {
    "tied weights that are saved once": lambda folder: (
        weights(lm_head__weight=None)(folder),
        config(tie_word_embeddings=True)(folder),
    )[0],
    "buffers of older versions": weights(
        model__layers__0__self_attn__rotary_emb__inv_freq=torch.zeros(4),
        model__layers__0__self_attn__masked_bias=torch.zeros(1),
    ),
    "parts of a larger model": weights(
        model__vision_tower__proj__weight=torch.zeros(2),
        v_head__summary__weight=torch.zeros(2),
        model__mm_projector__0__weight=torch.zeros(2),
        model__image_newline=torch.zeros(2),
        score__weight=torch.zeros(2),
        mtp__0__weight=torch.zeros(2),
    ),
}


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    return tiny.save_model(model, tmp_path / "model")


@pytest.mark.parametrize("what", REFUSED)
def test_weights_that_are_not_the_models_are_refused_by_name(
    folder: Path, plain: Engine, what: str
) -> None:
    change, says = REFUSED[what]
    change(folder)
    with pytest.raises(CheckpointError, match=says):
        Engine(folder, strategy="plain")
    with pytest.raises(CheckpointError, match=says):
        plain.with_strategy("draft_model", drafter=folder)


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_a_model_does_not_need_is_no_reason_to_refuse_it(folder: Path, what: str) -> None:
    ACCEPTED[what](folder)
    Engine(folder, strategy="plain").generate(PROMPTS[0], max_new_tokens=2)


def test_an_encoder_decoder_and_an_adapter_are_named(tmp_path: Path) -> None:
    t5 = hf.T5Config(
        d_model=32, d_ff=64, num_layers=1, num_heads=4, vocab_size=60, decoder_start_token_id=0
    )
    hf.T5ForConditionalGeneration(t5).save_pretrained(tmp_path / "t5")
    with pytest.raises(CheckpointError, match="encoder-decoder"):
        Engine(tmp_path / "t5", strategy="plain")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(CheckpointError, match=r"adapter for org/base.*merge_and_unload"):
        Engine(adapter, strategy="plain")
