"""The rows of an EAGLE-3 head's own lm_head that draft, and the tokens that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specdec.errors import OptionError
from specdec.models.hf_target import HFTarget
from specdec_plugins.eagle.eagle3_head import Eagle3Head


def rows_for(
    head: Eagle3Head, wanted: Tensor | None, target: HFTarget
) -> tuple[Tensor | None, nn.Module]:
    """The tokens of the columns of the draft logits (None for all of V), and what scores them.

    Args:
        wanted: ``[C]`` int64, the tokens that a user wants drafted; None for all that the head has.

    Raises:
        OptionError: the head has none of them.
    """
    own = head.vocabulary
    whole = len(own) == target.vocab_size
    if wanted is None:
        return None if whole else own, target.accelerated(head.lm_head)
    rows = torch.isin(own, wanted).nonzero()[:, 0]
    if not len(rows):
        raise OptionError(
            f"vocabulary: the head drafts among {len(own)} tokens, none of which is given; leave "
            "out vocabulary"
        )
    part = nn.Linear(head.lm_head.in_features, len(rows), bias=False, device="meta")
    part.weight = nn.Parameter(head.lm_head.weight.detach()[rows], requires_grad=False)
    if head.lm_head.bias is not None:
        part.bias = nn.Parameter(head.lm_head.bias.detach()[rows], requires_grad=False)
    return own[rows], target.accelerated(part)
