"""Unrolled steps of an EAGLE head: what it would compute while drafting, in parallel."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from specdec.training.batch import Batch


def unroll(
    head: nn.Module, embeddings: Tensor, features: Tensor, batch: Batch, steps: int
) -> Iterator[Tensor]:
    """The features ``[B, n, H]`` that the head predicts, from true ones, then from its own outputs.

    Row ``t`` always reads the token after ``t`` and predicts the feature at ``t + 1``, whose logits
    are the distribution of the token after next. From one step to the next only the row's own
    feature changes, to what the row before it predicted. So row ``t`` of step s is the last node of
    a chain of s draft tokens that are those of the text: it sees true features up to ``t - s``.

    Args:
        embeddings: ``[B, n, H]``, of the token after each.
        features: ``[B, n, H]``, of the target.

    Source: training-time test of EAGLE-3 (arXiv 2503.01840); HASS (arXiv 2408.15766).
    """
    causal = batch.causal()
    cache = DynamicCache()
    for step in range(steps):
        mask = unrolled_mask(causal, step)
        prediction: Tensor = head(embeddings, features, batch.positions, mask, cache)
        yield prediction
        features = prediction.roll(1, dims=1)


def unrolled_mask(causal: Tensor, step: int) -> Tensor:
    """``[B, 1, n, (step + 1) n]`` bool: what the rows of an unrolled step see.

    Keys are those of steps 0, 1, ..., step in turn. Row ``t`` sees keys of true features (step 0)
    up to ``t - step``, then, for each later step ``i``, only its own chain's key at
    ``t - step + i``; the last one is itself.

    Args:
        causal: ``[B, 1, n, n]`` bool, what each row sees at step 0.
    """
    ones = torch.ones_like(causal[0, 0])
    blocks = [causal & ones.tril(-step)]
    for i in range(1, step + 1):
        lag = step - i
        blocks.append(causal & ones.tril(-lag) & ones.triu(-lag))
    return torch.cat(blocks, dim=-1)
