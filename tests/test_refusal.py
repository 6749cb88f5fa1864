"""Models that cannot be verified as a tree are refused, by name or by the check at load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from tiny import PROMPTS, SHAPE

from specdec import Engine
from specdec.errors import UnsupportedModelError


def qwen3_next() -> hf.PretrainedConfig:
    return hf.Qwen3NextConfig(
        **SHAPE, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        shared_expert_intermediate_size=16, linear_num_value_heads=4, linear_num_key_heads=2,
        linear_key_head_dim=8, linear_value_head_dim=8,
    )  # fmt: skip


UNTREEABLE: dict[str, tuple[Callable[[], hf.PretrainedConfig], str]] = {
    "bloom": (lambda: hf.BloomConfig(hidden_size=32, n_layer=1, n_head=4, vocab_size=60), "alibi"),
    "mpt": (lambda: hf.MptConfig(d_model=32, n_layers=1, n_heads=4, vocab_size=60), "alibi"),
    "falcon": (
        lambda: hf.FalconConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=60, alibi=True
        ),
        "alibi",
    ),
    "llama4": (
        lambda: hf.Llama4TextConfig(
            **SHAPE,
            head_dim=8,
            attention_chunk_size=8,
            num_local_experts=2,
            intermediate_size_mlp=64,
        ),
        "chunked",
    ),
    "mamba": (
        lambda: hf.MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=60, state_size=4),
        "cannot be verified as a tree",
    ),
    "qwen3-next": (qwen3_next, "cannot be verified as a tree"),
    "dynamic-rope": (
        lambda: tiny.llama_config(
            rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
        ),
        "changes with the sequence length",
    ),
}


@pytest.mark.parametrize("name", UNTREEABLE)
def test_models_that_no_tree_mask_describes_are_refused(name: str) -> None:
    config, says = UNTREEABLE[name]
    model = hf.AutoModelForCausalLM.from_config(config()).eval()
    with pytest.raises(UnsupportedModelError, match=says):
        Engine(model, strategy="plain")


def test_a_model_whose_positions_are_ignored_is_caught_by_the_check_at_load() -> None:
    """A model with a wrong mask or position must not pass: here positions are shifted in secret."""
    model = tiny.make_model()
    inner = model.base_model.rotary_emb.forward
    model.base_model.rotary_emb.forward = lambda x, position_ids: inner(
        x, torch.arange(position_ids.shape[1]).expand_as(position_ids)
    )
    with pytest.raises(UnsupportedModelError, match="differs from path-by-path"):
        Engine(model, strategy="plain")


def test_a_model_that_ignores_the_mask_is_caught_by_the_check_at_load() -> None:
    model = tiny.make_model()
    inner = model.base_model.layers[1].forward
    model.base_model.layers[1].forward = lambda x, **kwargs: inner(
        x, **{**kwargs, "attention_mask": None}
    )
    with pytest.raises(UnsupportedModelError, match="tree"):
        Engine(model, strategy="plain")


def test_what_the_tree_verifier_refuses_the_path_verifier_decodes() -> None:
    config = hf.BloomConfig(
        hidden_size=32, n_layer=2, n_head=4, vocab_size=60, initializer_range=0.3
    )
    model = tiny.make_model(config)
    with pytest.raises(UnsupportedModelError, match="alibi"):
        Engine(model, strategy="plain")
    engine = Engine(model, strategy="plain", verifier="path")
    got = tiny.tokens(engine, PROMPTS, max_new_tokens=6, temperature=0, eos_token_id=[])
    assert got == [tiny.greedy_reference(model, prompt, 6) for prompt in PROMPTS]


def test_layers_that_no_mask_describes_are_refused_and_decoded_path_by_path() -> None:
    config = hf.Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"])
    model = tiny.make_model(config)
    with pytest.raises(UnsupportedModelError, match=r"layers of type conv.*verifier='path'"):
        Engine(model, strategy="plain")
    engine = Engine(model, strategy="lookup", verifier="path")
    got = tiny.tokens(engine, PROMPTS, max_new_tokens=6, temperature=0, eos_token_id=[])
    assert got == [tiny.greedy_reference(model, prompt, 6) for prompt in PROMPTS]


@pytest.mark.parametrize(
    "config",
    [
        lambda: hf.ElectraConfig(
            embedding_size=8, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=4, vocab_size=60, is_decoder=True,
        ),
        lambda: hf.RobertaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
            vocab_size=60, is_decoder=True, pad_token_id=None,
        ),
    ],
    ids=["electra", "roberta"],
)  # fmt: skip
def test_models_that_do_not_run_are_refused_in_a_sentence(config: Any) -> None:
    model = hf.AutoModelForCausalLM.from_config(config()).eval()
    with pytest.raises(UnsupportedModelError, match="did not run as"):
        Engine(model, strategy="plain")
