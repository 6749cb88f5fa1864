"""Checkpoints in every layout of EAGLE heads, written by hand from one head."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import Tensor

from specdec import Engine
from specdec.errors import CheckpointError
from specdec_plugins.eagle.checkpoint import load_head, tensors_of
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.testing import random_eagle3_head

LAYERS = 8  # of the target: the usual auxiliary layers are three from seven on
USUAL = (2, LAYERS // 2, LAYERS - 3)
LAYOUTS = (
    "official",
    "specforge",
    "speculators",
    "modelopt",
    "angelslim",
    "deepspec",
    "nemo",
    "vllm",
)
EAGLE_LAYOUTS = ("official", "speculators")  # of EAGLE-1/2


@dataclass
class Written:
    """A checkpoint that a test may change before it is saved."""

    fields: dict[str, Any]
    weights: dict[str, Tensor]

    def save(self, folder: Path) -> Path:
        """Write it; the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.fields))
        save_file(
            {k: v.contiguous() for k, v in self.weights.items()}, folder / "model.safetensors"
        )
        return folder


def head_for(model: Any, **changes: Any) -> Eagle3Head:
    """A head that reads the usual auxiliary layers of the target."""
    return random_eagle3_head(model, **{"aux_layers": USUAL, **changes})


def eagle_in_layout(layout: str, head: EagleHead) -> Written:
    """An EAGLE-1/2 head's checkpoint, with a bias of ``fc``, as the tools of the layout save it."""
    config = head.config
    weights = {name: tensor.clone() for name, tensor in tensors_of(head).items()}
    decoder = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "num_hidden_layers": 1,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.rms_norm_eps,
        "model_type": "llama",
    }
    if layout == "official":
        return Written({**decoder, "architectures": ["LlamaForCausalLM"], "bias": True}, weights)
    named = {"fc": "fusion_fc", "layers.0": "transformer"}
    for old, new in named.items():
        weights = {name.replace(f"{old}.", f"{new}."): each for name, each in weights.items()}
    fields = {
        "speculators_model_type": "eagle",
        "architectures": ["EagleSpeculator"],
        "speculators_version": "0.1.0",
        "speculators_config": {"algorithm": "eagle", "verifier": {"name_or_path": "x"}},
        "transformer_layer_architecture": "LlamaDecoderLayer",
        "transformer_layer_config": decoder,
        "fusion_bias": True,
        "layernorms": False,
    }
    return Written(fields, weights)


def in_layout(layout: str, head: Eagle3Head) -> Written:
    """The head's checkpoint as the tools that write this layout would save it."""
    config, wiring = head.config, head.wiring
    weights = {name: tensor.clone() for name, tensor in tensors_of(head).items()}
    marked = torch.zeros(config.vocab_size, dtype=torch.bool)
    marked[head.vocabulary] = True
    weights |= {"d2t": head.vocabulary - torch.arange(len(head.vocabulary)), "t2d": marked}
    decoder = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "num_hidden_layers": 1,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "model_type": "llama",
    }
    fields = {**decoder, "draft_vocab_size": wiring.draft_vocab_size}
    outputs = {"eagle_aux_hidden_state_layer_ids": [i - 1 for i in wiring.aux_layers]}
    if layout in ("official", "angelslim", "specforge"):
        weights = {name.replace("layers.0.", "midlayer."): x for name, x in weights.items()}
    if layout == "official":
        fields |= {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 32}
    elif layout == "angelslim":
        fields |= {"architectures": ["Eagle3LlamaForCausalLM"], "tie_word_embeddings": True}
    elif layout == "specforge":
        fields |= {"architectures": ["LlamaForCausalLMEagle3"], "eagle_config": outputs}
    elif layout == "modelopt":
        del weights["t2d"]
        flags = {
            "use_input_layernorm_in_first_layer": True,
            "use_last_layernorm": True,
            "use_mtp_layernorm": False,
            "next_layer_regular": True,
            "parallel_draft_step": 1,
            "parallel_draft_heads_num_layers": 1,
            "use_aux_hidden_state": True,
        }
        fields |= {
            "architectures": ["LlamaForCausalLMEagle3"],
            "eagle_config": {**outputs, **flags},
            "rope_theta": 10000.0,
        }
    elif layout == "deepspec":
        fields |= {
            "architectures": ["Qwen3Eagle3Model"],
            "target_layer_ids": [i - 1 for i in wiring.aux_layers],
        }
    elif layout == "nemo":
        weights = {f"model.{name}": tensor for name, tensor in weights.items()}
        fields |= {"eagle_config": outputs}
    elif layout == "vllm":
        fields |= {"eagle_config": outputs, "norm_before_residual": False}
    elif layout == "speculators":
        fields = {
            "speculators_model_type": "eagle3",
            "architectures": ["Eagle3Speculator"],
            "speculators_version": "0.3.0",
            "speculators_config": {"algorithm": "eagle3", "verifier": {"name_or_path": "x"}},
            "transformer_layer_config": decoder,
            "draft_vocab_size": wiring.draft_vocab_size,
            "norm_before_residual": False,
            "eagle_aux_hidden_state_layer_ids": list(wiring.aux_layers),
            "tie_word_embeddings": False,
        }
    return Written(fields, weights)


def refused(folder: Path, engine: Engine, *says: str, **flags: Any) -> None:
    """Loading the checkpoint for the engine's target fails, and the error says all of ``says``."""
    with pytest.raises(CheckpointError) as error:
        load_head(folder, engine.target, **flags)
    for part in says:
        assert part in str(error.value), f"{part!r} is not in: {error.value}"


def each_missing_is_named(written: Written, engine: Engine, folder: Path, but: str = "") -> None:
    """Without any one of its tensors the checkpoint is refused by that one's name.

    Args:
        but: the tensor that may be left out.
    """
    for key in written.weights:
        if key.removeprefix("model.") != but:
            rest = {name: each for name, each in written.weights.items() if name != key}
            refused(Written(written.fields, rest).save(folder), engine, f"missing keys: {key}")


def each_fault_is_named(
    written: Written, engine: Engine, folder: Path, misshapen: Callable[[str], str]
) -> None:
    """With any one of its tensors misshapen, or holding NaN or infinity, the checkpoint is refused.

    Args:
        misshapen: what the error says of a tensor of another shape, by its name.
    """

    def changed(key: str, tensor: Tensor) -> Path:
        return Written(written.fields, {**written.weights, key: tensor}).save(folder)

    for key, tensor in written.weights.items():
        refused(changed(key, torch.cat([tensor, tensor[:1]])), engine, misshapen(key))
        for value in (float("nan"), float("inf")) if tensor.is_floating_point() else ():
            wrong = tensor.clone()
            wrong.view(-1)[-1] = value
            refused(changed(key, wrong), engine, f"{key} holds NaN or infinity")


def surplus_is_named(written: Written, engine: Engine, folder: Path, key: str) -> None:
    """With a tensor more the checkpoint is refused by its name."""
    more = {**written.weights, key: torch.zeros(3)}
    refused(Written(written.fields, more).save(folder), engine, "unexpected keys: ", key)


def same_trees(one: Engine, other: Engine, **settings: Any) -> None:
    """Both draft the same trees with the same values, step by step."""
    pairs = zip(*(tiny.steps(each, tiny.PROMPTS, **settings) for each in (one, other)), strict=True)
    for own, wanted in pairs:
        assert torch.equal(own.tree.tokens, wanted.tree.tokens)
        assert torch.equal(own.tree.log_value, wanted.tree.log_value)
