"""What drafters and policies that ship with specdec need to run on the suite's models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from specdec.testing.table_model import OTHERS, TableForCausalLM, register
from specdec.testing.tiny_models import next_feature, noisy_copy

# Saves a checkpoint that fits the target model into the folder, and returns what names it.
Provider = Callable[[PreTrainedModel, Path], str]


def draft_model(model: PreTrainedModel, folder: Path) -> str:
    """Save a model like the target, for drafters that load a causal language model."""
    register()
    draft = model if isinstance(model, TableForCausalLM) else noisy_copy(model)
    draft.save_pretrained(folder)
    return str(folder)


def eagle_head(model: PreTrainedModel, folder: Path) -> str:
    """Save a random EAGLE-1/2 head that fits the target, in the published format."""
    from safetensors.torch import save_file

    vocab, h = model.get_output_embeddings().weight.shape
    tables = isinstance(model, TableForCausalLM)
    generator, wide = torch.Generator().manual_seed(0), 2 * h
    shapes = {"fc": (h, 2 * h)}
    shapes |= {f"layers.0.self_attn.{name}_proj": (h, h) for name in "qkvo"}
    shapes |= {"layers.0.mlp.gate_proj": (wide, h), "layers.0.mlp.up_proj": (wide, h)}
    shapes |= {"layers.0.mlp.down_proj": (h, wide)}
    scale = 0.5 if tables else 0.05
    weights: dict[str, Tensor] = {
        f"{name}.weight": scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    if tables:
        # Features hold log-weights of -1e4: read faintly, they cannot drown the embedding.
        weights["fc.weight"][:, h:] *= 0.1
    else:
        weights["fc.weight"] = next_feature(model)
    weights["fc.bias"] = torch.zeros(h, dtype=torch.float64)
    if tables:
        # Tokens that the table never writes come late in any draft, whatever else was read.
        for name in ("fc", "layers.0.self_attn.o_proj", "layers.0.mlp.down_proj"):
            weights[f"{name}.weight"][OTHERS] = 0.0
        for name in "qkv":
            weights[f"layers.0.self_attn.{name}_proj.weight"][:, OTHERS] = 0.0
        weights["fc.weight"][:, [OTHERS, h + OTHERS]] = 0.0
        weights["fc.bias"][OTHERS] = -20.0
    weights["layers.0.post_attention_layernorm.weight"] = torch.ones(h, dtype=torch.float64)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fields: dict[str, Any] = {
        "hidden_size": h,
        "intermediate_size": wide,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": h // 2,
        "vocab_size": vocab,
        "bias": True,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    return str(folder)


# By the drafter's name.
PROVIDERS: dict[str, Provider] = {"eagle": eagle_head, "draft_model": draft_model}
# By the policy's name: options for a vocabulary of 2 to 6 tokens. With the defaults such a small
# tree holds every continuation, and nothing is ever turned down.
SMALL: dict[str, dict[str, Any]] = {
    "eagle2": {"depth": 3, "top_k": 2, "budget": 4},
    "static_tree": {"choices": ((0,), (1,), (0, 0), (0, 1), (1, 0), (0, 1, 0))},
    "chain": {"depth": 3},
    "kary_tree": {"k": 2, "depth": 2},
    "sampled": {"depth": 2},
    "auto": {"depth": 3, "width": 2, "children": 2, "budget": 4},
}
# By the policy's name, from its options: whether drafts depend on how earlier drafts fared.
ADAPTIVE: dict[str, Callable[[Any], bool]] = {
    "auto": lambda options: options.calibrated or options.costs
}
