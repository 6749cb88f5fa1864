"""Test support of the drafter ``hydra``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from specdec.models.heads.depth_heads import Projection
from specdec.testing.random_heads import (
    drafted_rows,
    fill_with_noise,
    greedy_texts,
    never_written,
)
from specdec.testing.support import DrafterSupport
from specdec.testing.table_model import OTHERS, TableForCausalLM
from specdec_plugins.hydra.checkpoint import HEADS
from specdec_plugins.hydra.heads import HydraHeads, HydraSizes
from specdec_plugins.hydra.prefix_layer import PrefixSizes


def hydra_heads(model: PreTrainedModel, folder: Path, *, prefix: bool = True) -> str:
    """Save random Hydra heads that fit the target, with a prefix layer and projections of their
    own."""
    HEADS.save(random_heads(model, prefix=prefix), folder)
    return str(folder)


@torch.no_grad()
def random_heads(
    model: PreTrainedModel,
    heads: int = 3,
    layers: int = 1,
    projection: Projection = "own",
    drafted: int | None = None,
    *,
    prefix: bool = False,
) -> HydraHeads:
    """Heads in float64; of a target that is no table they are often right.

    Args:
        drafted: how many tokens are drafted, every other one from the second on; None for all.
    """
    vocab, hidden = model.get_output_embeddings().weight.shape
    vocabulary = None if drafted is None else (1 + 2 * torch.arange(drafted))
    size = vocab if vocabulary is None else len(vocabulary)
    layer = None
    if prefix:
        layer = PrefixSizes(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=hidden // 2,
        )
    sizes = HydraSizes(hidden, vocab, heads, layers, projection, size, prefix=layer)
    with torch.random.fork_rng(devices=[]):
        made = HydraHeads(sizes, vocabulary).double()
    tables = isinstance(model, TableForCausalLM)
    fill_with_noise(made, 0.5 if tables else 0.05)
    (_mute_others if tables else _guess_ahead)(made, model)
    return made.eval()


def _mute_others(made: HydraHeads, model: PreTrainedModel) -> None:
    """Tokens that a table never writes come late in any draft; log-weights of -1e4 are read
    faintly. Each embedding has one channel."""
    size = made.sizes.hidden_size
    for mlp in made.hydra_mlp:
        for name, weight in mlp.named_parameters():
            weight[OTHERS] = 0.0
            if name.endswith("weight"):
                weight[:, OTHERS::size] = 0.0
                weight[:, :size] *= 0.1
    outside = never_written(model, made)
    linear: Any
    for linear in made.hydra_lm_head:
        linear.weight[outside] = 0.0
        linear.bias[outside] = -1e4


def _guess_ahead(made: HydraHeads, model: PreTrainedModel) -> None:
    """Let each head give the best linear guess of the hidden state that the target has further
    ahead in greedy text, from what it reads, and projections be the target's lm_head."""
    text, hidden = greedy_texts(model)
    seen = hidden
    if made.prefix_embeding_layer is not None:
        vocab, n = text.shape
        causal = torch.ones(n, n, dtype=torch.bool).tril().expand(vocab, 1, -1, -1)
        seen = made.prefix_embeding_layer(hidden, torch.arange(n).expand(vocab, -1), causal)
    embedded = model.get_input_embeddings()(text).double()
    for head, mlp in enumerate(made.hydra_mlp):
        ahead, length = head + 1, text.shape[1] - head - 1
        path = [embedded[:, i : i + length] for i in range(1, ahead + 1)]
        read = torch.cat([seen[:, :length], *path], dim=-1).flatten(0, 1)
        wanted = hidden[:, ahead:].flatten(0, 1)
        first = mlp.get_submodule("0.res_connection")
        first.get_parameter("weight").copy_(torch.linalg.lstsq(read, wanted).solution.T)
    for linear in made.hydra_lm_head:
        linear.get_parameter("weight").copy_(drafted_rows(model, made))


SUPPORT = [DrafterSupport("hydra", checkpoint=hydra_heads)]
