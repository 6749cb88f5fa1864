"""A tiny Llama, and heads of every kind that the official layout has, saved by specdec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, PreTrainedModel

from specdec.testing.tiny_models import SHAPE, VOCAB, make_model
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.saving import save_head
from specdec_plugins.eagle.testing import next_feature, random_eagle3_head

LAYERS = 8  # of the target: the official code reads three different hidden states from seven on


def make_target(seed: int) -> PreTrainedModel:
    """A random target in float32."""
    config = LlamaConfig(**{**SHAPE, **_rope(50000.0), "num_hidden_layers": LAYERS})
    return make_model(config, seed=seed, dtype=torch.float32)


def make_heads(target: PreTrainedModel, folder: Path, seed: int) -> Iterator[tuple[str, Path]]:
    """Heads that are right now and then: names, and where each was saved."""
    usual: dict[str, Any] = {"aux_layers": (2, LAYERS // 2, LAYERS - 3)}
    heads = {
        "EAGLE-1/2": _eagle_head(target, seed),
        "EAGLE-1/2, no bias": _eagle_head(target, seed, fc_bias=False),
        "EAGLE-1/2, two layers, biases, own embedding": _eagle_head(
            target, seed, own_embedding=True, num_hidden_layers=2, attention_bias=True
        ),
        "EAGLE-3": random_eagle3_head(target, **usual),
        "EAGLE-3, whole vocabulary": random_eagle3_head(target, **usual, draft_vocab_size=VOCAB),
        "EAGLE-3, own embedding": random_eagle3_head(target, **usual, own_embedding=True),
    }
    for number, (name, head) in enumerate(heads.items()):
        place = folder / str(number)
        save_head(head.float(), place, "official", target_layers=LAYERS)
        yield name, place


@torch.no_grad()
def _eagle_head(
    target: PreTrainedModel,
    seed: int,
    fc_bias: bool = True,
    own_embedding: bool = False,
    **changes: Any,
) -> EagleHead:
    """A head whose ``fc`` is the best linear guess of the target's next feature."""
    config = LlamaConfig(**{**SHAPE, **_rope(20000.0), "num_hidden_layers": 1, **changes})
    head = EagleHead(config, fc_bias, own_embedding)
    generator = torch.Generator().manual_seed(seed)
    for weight in head.parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.copy_(0.05 * noise + (weight.dim() == 1))
    if head.embed_tokens is not None:
        embedding = target.get_input_embeddings().weight
        head.embed_tokens.weight.mul_(6).add_(embedding)
    head.fc.weight.copy_(next_feature(target))
    if head.fc.bias is not None:
        head.fc.bias.sub_(1)
    return head


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
