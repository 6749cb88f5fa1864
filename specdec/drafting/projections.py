"""Projections of draft heads: linear layers that give logits, cut to what is drafted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specdec.errors import OptionError
from specdec.models.hf_target import HFTarget


def drafted_rows(own: Tensor | None, wanted: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The rows of a projection that are to draft, and the tokens that these stand for.

    Both ``[m]`` int64, ascending; None for all.

    Args:
        own: ``[C]`` int64, ascending, the tokens that its rows stand for; None for all of V.
        wanted: ``[m]`` int64, ascending, the tokens that a user wants drafted; None for all there
            are.

    Raises:
        OptionError: it has none of them.
    """
    if own is None:
        return wanted, wanted
    if wanted is None:
        return None, own
    rows = torch.isin(own, wanted).nonzero()[:, 0]
    if not len(rows):
        raise OptionError(
            f"vocabulary: the drafter has {len(own)} tokens to draft, none of which is given; "
            "leave out vocabulary"
        )
    return rows, own[rows]


def projection_of(linear: nn.Module, rows: Tensor | None, target: HFTarget) -> nn.Module:
    """A linear layer's projection on some rows or all, accelerated as the target is."""
    assert isinstance(linear, nn.Linear)
    if rows is None:
        return target.accelerated(linear)
    part = nn.Linear(linear.in_features, len(rows), bias=False, device="meta")
    part.weight = nn.Parameter(linear.weight.detach()[rows], requires_grad=False)
    if linear.bias is not None:
        part.bias = nn.Parameter(linear.bias.detach()[rows], requires_grad=False)
    return target.accelerated(part)
