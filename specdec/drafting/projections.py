"""Projections: linear layers that give logits, of heads or the target, cut to what is drafted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specdec.errors import OptionError
from specdec.models.hf_target import HFTarget
from specdec.models.placement import is_offloaded
from specdec.models.ranks import whole


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


def lm_head_of(target: HFTarget, tokens: Tensor | None, dtype: torch.dtype) -> nn.Module:
    """The lm_head that scores ``tokens [C]`` alone, or all for None; accelerated like the whole.

    Its rows are copied, so that they lie side by side.

    Raises:
        OptionError: an lm_head that is no linear layer or is offloaded, or an acceleration that
            ``dtype`` does not allow.
    """
    if tokens is None:
        return target.lm_head(dtype)
    head = target.model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise OptionError(
            f"the lm_head of this model is a {type(head).__name__}, of which no rows can be "
            "taken: leave out vocabulary"
        )

    if is_offloaded(head):
        raise OptionError(
            "the lm_head of this model is offloaded (device_map), so that no rows can be taken of "
            "it: leave out vocabulary, or keep the lm_head in memory"
        )

    def rows(weight: Tensor) -> nn.Parameter:
        taken = whole(weight.detach()).index_select(0, tokens.to(weight.device))
        return nn.Parameter(taken.to(target.device, dtype), requires_grad=False)

    part = nn.Linear(head.in_features, len(tokens), bias=head.bias is not None, device="meta")
    part.weight = rows(head.weight)
    if head.bias is not None:
        part.bias = rows(head.bias)
    return target.accelerated(part)
