"""What random heads for tests are made of: noise, and what the target writes further ahead."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from specdec.models.heads.depth_heads import DepthHeads
from specdec.testing.table_model import OTHERS


@torch.no_grad()
def fill_with_noise(heads: DepthHeads, scale: float) -> None:
    """The same weights each time, of this size; norms about 1."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in heads.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(scale * noise + ("norm" in name))


@torch.no_grad()
def greedy_texts(model: PreTrainedModel, length: int = 16) -> tuple[Tensor, Tensor]:
    """What the target writes after each token, ``[V, length]`` int64, and its last hidden states,
    ``[V, length, H]`` float64."""
    text = torch.arange(model.get_output_embeddings().weight.shape[0])[:, None]
    while text.shape[1] < length:
        text = torch.cat([text, model(text).logits[:, -1:].argmax(-1)], dim=1)
    return text, model.base_model(text).last_hidden_state.double()


def drafted_rows(model: PreTrainedModel, heads: DepthHeads) -> Tensor:
    """The rows ``[C, H]`` of the target's lm_head for the tokens that are drafted, in float64."""
    rows: Tensor = model.get_output_embeddings().weight.detach().double()
    return rows if heads.vocabulary is None else rows[heads.vocabulary]


def never_written(model: PreTrainedModel, heads: DepthHeads) -> Tensor:
    """Which of the drafted tokens a table never writes: ``[C]`` bool."""
    return drafted_rows(model, heads)[:, OTHERS] > 0
