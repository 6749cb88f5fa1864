"""Test support of the drafters ``eagle`` and ``eagle3``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from specdec.testing.support import DrafterSupport
from specdec.testing.table_model import OTHERS, TableForCausalLM


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


@torch.no_grad()
def next_feature(model: PreTrainedModel, seed: int = 0) -> Tensor:
    """The linear map ``[H, 2H]`` from (embedding, feature) to the next feature, by least squares.

    As the ``fc`` of an EAGLE head it is right about half of the time.
    """
    generator = torch.Generator().manual_seed(seed)
    vocab = model.get_output_embeddings().weight.shape[0]
    length = min(24, model.config.max_position_embeddings)
    text = torch.randint(0, vocab, (48, length), generator=generator)
    features = model.base_model(input_ids=text).last_hidden_state.double()
    embedded = model.get_input_embeddings()(text).double()
    pairs = torch.cat([embedded[:, 1:], features[:, :-1]], dim=-1).flatten(0, 1)
    solution: Tensor = torch.linalg.lstsq(pairs, features[:, 1:].flatten(0, 1)).solution
    return solution.T.contiguous()


SUPPORT = [DrafterSupport("eagle", checkpoint=eagle_head)]
