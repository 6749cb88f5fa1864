"""Test support of the drafter ``medusa``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
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
from specdec_plugins.medusa.checkpoint import HEADS
from specdec_plugins.medusa.heads import MedusaHeads, MedusaSizes


def medusa_heads(model: PreTrainedModel, folder: Path) -> str:
    """Save random Medusa heads that fit the target, with projections of their own."""
    HEADS.save(random_heads(model), folder)
    return str(folder)


@torch.no_grad()
def random_heads(
    model: PreTrainedModel,
    heads: int = 3,
    layers: int = 1,
    projection: Projection = "own",
    drafted: int | None = None,
) -> MedusaHeads:
    """Heads in float64; of a target that is no table the first ones are often right.

    Args:
        drafted: how many tokens are drafted, every other one from the second on; None for all.
    """
    vocab, hidden = model.get_output_embeddings().weight.shape
    vocabulary = None if drafted is None else (1 + 2 * torch.arange(drafted))
    size = vocab if vocabulary is None else len(vocabulary)
    made = MedusaHeads(
        MedusaSizes(hidden, vocab, heads, layers, projection, size), vocabulary
    ).double()
    tables = isinstance(model, TableForCausalLM)
    fill_with_noise(made, 0.5 if tables else 0.1)
    (_mute_others if tables else _guess_ahead)(made, model)
    return made.eval()


def _mute_others(made: MedusaHeads, model: PreTrainedModel) -> None:
    """Tokens that a table never writes come late in any draft; log-weights of -1e4 are read
    faintly."""
    block: Any
    linear: Any
    for block in made.blocks:
        for layer in block.layers:
            layer.weight[OTHERS] = layer.weight[:, OTHERS] = layer.bias[OTHERS] = 0.0
    outside = never_written(model, made)
    for linear in made.lm_heads:
        linear.weight *= 0.2
        linear.weight[:, OTHERS] = 0.0
        linear.weight[outside] = 0.0
        linear.weight[outside, OTHERS] = 1.0


def _guess_ahead(made: MedusaHeads, model: PreTrainedModel) -> None:
    """Let each head score by a guess of the hidden state that the target has further ahead in
    greedy text: its own projection makes the best linear one, or, where it has none, its blocks."""
    (_, hidden), rows = greedy_texts(model), drafted_rows(model, made)
    linear: Any
    for linear in made.lm_heads:
        linear.weight += rows
    for head, block in enumerate(made.blocks):
        known, wanted = (x.flatten(0, 1) for x in (hidden[:, : -head - 1], hidden[:, head + 1 :]))
        if made.sizes.projection == "own":
            solution = torch.linalg.lstsq(block(known), wanted).solution
            made.lm_heads[head].get_parameter("weight").copy_(rows @ solution.T)
        else:
            _fit(block, known, wanted)


@torch.enable_grad()
def _fit(network: nn.Module, known: torch.Tensor, wanted: torch.Tensor) -> None:
    """Fit ``network(known)`` to ``wanted``, by least squares."""
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def error() -> torch.Tensor:
        optimizer.zero_grad()
        off: torch.Tensor = (network(known) - wanted).square().mean()
        off.backward()  # type: ignore[no-untyped-call]
        return off

    optimizer.step(error)  # type: ignore[no-untyped-call]


SUPPORT = [DrafterSupport("medusa", checkpoint=medusa_heads)]
