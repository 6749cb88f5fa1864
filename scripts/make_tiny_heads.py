"""Write tiny Medusa and Hydra checkpoints in every published layout, on random weights.

``python scripts/make_tiny_heads.py FOLDER`` makes a folder for each layout, of heads for a target
of 32 channels and 60 tokens (that of the tests), written as the tools that publish them do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

HIDDEN, VOCAB, HEADS = 32, 60, 3
Checkpoint = tuple[dict[str, Any], dict[str, Tensor], str]


def residual_block(width: int = 1) -> nn.Module:
    """A linear layer called ``linear``, and ``res_connection`` where it reads several vectors."""
    block = nn.Module()
    block.linear = nn.Linear(width * HIDDEN, HIDDEN)
    if width > 1:
        block.res_connection = nn.Linear(width * HIDDEN, HIDDEN)
    return block


def medusa(layers: int = 1, heads: int = HEADS) -> dict[str, Tensor]:
    """Tensors of the authors' Medusa: each head a sequence of blocks and a projection."""
    return nn.ModuleList(
        nn.Sequential(
            *(residual_block() for _ in range(layers)), nn.Linear(HIDDEN, VOCAB, bias=False)
        )
        for _ in range(heads)
    ).state_dict()


def medusa_pickle() -> Checkpoint:
    """``medusa_lm_head.pt``; the config names fewer heads than there are, as published ones do."""
    fields = {"medusa_num_heads": 2, "medusa_num_layers": 1, "base_model_name_or_path": "x"}
    return fields, medusa(), "medusa_lm_head.pt"


def medusa_safetensors() -> Checkpoint:
    """``medusa_lm_head.safetensors``, two blocks a head."""
    fields = {"medusa_num_heads": HEADS, "medusa_num_layers": 2, "base_model_name_or_path": "x"}
    return fields, medusa(layers=2), "medusa_lm_head.safetensors"


def medusa_whole() -> Checkpoint:
    """Heads within a whole model."""
    fields = {"medusa_num_heads": HEADS, "medusa_num_layers": 1, "model_type": "llama"}
    tensors = {f"medusa_head.{name}": each for name, each in medusa().items()}
    return fields, {**tensors, "model.norm.weight": torch.ones(HIDDEN)}, "model.safetensors"


def vllm(shared: bool = False, drafted: int = VOCAB) -> Checkpoint:
    """vLLM's layout: blocks and projections apart, a draft vocabulary, one lm_head for all."""
    network = nn.Module()
    network.blocks = nn.ModuleList()
    for _ in range(HEADS):
        network.blocks.append(nn.Module())
        network.blocks[-1].layers = nn.ModuleList([nn.Linear(HIDDEN, HIDDEN, bias=False)])
    heads = [nn.Linear(HIDDEN, drafted, bias=False) for _ in range(1 if shared else HEADS)]
    network.lm_heads = nn.ModuleList(heads)
    tensors = network.state_dict()
    if shared:
        tensors["lm_head.weight"] = tensors.pop("lm_heads.0.weight")
    if drafted != VOCAB:
        tensors["token_map"] = torch.randperm(VOCAB)[:drafted]
    fields = {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": HIDDEN,
        "vocab_size": VOCAB,
        "truncated_vocab_size": drafted,
        "num_heads": HEADS,
        "num_hidden_layers": 1,
        "original_lm_head": shared,
    }
    return fields, tensors, "model.safetensors"


def hydra(layers: int = 1) -> Checkpoint:
    """``hydra_lm_head.pt``: the block that reads h vectors goes to one of them by itself."""
    network = nn.Module()
    network.hydra_mlp = nn.ModuleList(
        nn.Sequential(residual_block(head + 2), *(residual_block() for _ in range(layers - 1)))
        for head in range(HEADS)
    )
    network.hydra_lm_head = nn.ModuleList(nn.Linear(HIDDEN, VOCAB) for _ in range(HEADS))
    network.input_embed_fn = nn.Embedding(VOCAB, HIDDEN)  # the authors' trainer saves the target's
    fields = {
        "hydra_num_heads": HEADS,
        "hydra_num_layers": layers,
        "hydra_head_arch": "mlp",
        "grounded_heads": True,
        "hidden_state_offset": 0,
        "base_model_name_or_path": "x",
    }
    return fields, network.state_dict(), "hydra_lm_head.pt"


def hydra_plus_plus() -> Checkpoint:
    """Hydra++: dropout layers are counted, and a model of one layer comes before the heads."""
    network = nn.Module()
    network.prefix_embeding_layer = LlamaModel(
        LlamaConfig(
            hidden_size=HIDDEN,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=VOCAB,
            initializer_range=0.3,
        )
    )
    network.hydra_mlp = nn.ModuleList(
        nn.Sequential(nn.Dropout(), residual_block(head + 2), nn.Dropout(), residual_block())
        for head in range(HEADS)
    )
    network.hydra_lm_head = nn.ModuleList(
        nn.Sequential(nn.Dropout(), nn.Linear(HIDDEN, VOCAB)) for _ in range(HEADS)
    )
    fields, _, name = hydra()
    fields = {**fields, "hydra_num_layers": 2, "hydra_head_arch": "prefix-mlp"}
    return fields, network.state_dict(), name


LAYOUTS: dict[str, Callable[[], Checkpoint]] = {
    "medusa-pickle": medusa_pickle,
    "medusa-safetensors": medusa_safetensors,
    "medusa-whole": medusa_whole,
    "medusa-vllm": vllm,
    "medusa-vllm-mapped": lambda: vllm(drafted=40),
    "medusa-vllm-shared": lambda: vllm(shared=True, drafted=40),
    "hydra": hydra,
    "hydra-deep": lambda: hydra(layers=2),
    "hydra++": hydra_plus_plus,
}


def write(checkpoint: Checkpoint, folder: Path) -> Path:
    """Save a checkpoint; the folder."""
    fields, tensors, name = checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if name.endswith(".safetensors"):
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / name)
    else:
        torch.save(tensors, folder / name)
    return folder


def make(layout: str, seed: int = 0) -> Checkpoint:
    """Config, tensors and file name of a layout."""
    torch.manual_seed(seed)
    return LAYOUTS[layout]()


if __name__ == "__main__":
    for layout in LAYOUTS:
        print(write(make(layout), Path(sys.argv[1]) / layout))
