"""Options of the trainers of heads that draft one depth each."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.drafting.draft_vocabulary import check_size
from specdec.errors import OptionError
from specdec.models.heads.depth_heads import Projection
from specdec.models.hf_target import HFTarget
from specdec.training.documents import Documents

_VOCABULARY = 8192


class DepthTraining(BaseModel):
    """Options of every such trainer; a kind of heads adds what is its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: int = Field(4, ge=1, le=16, description="heads, so tokens ahead")
    layers: int = Field(1, ge=1, le=8, description="residual blocks of each head")
    projection: Projection = Field(
        "target",
        description="what gives logits: target, the target's lm_head as it is, so that nothing of "
        "the vocabulary's size is saved; shared, one for all heads, trained; own, one for each, "
        "trained, as published heads have",
    )
    draft_vocab_size: int | None = Field(
        None,
        ge=2,
        description="how many of the most frequent tokens of the answers are drafted; default: "
        f"{_VOCABULARY}, or all where the target has fewer",
    )
    step_decay: float = Field(0.8, gt=0, le=1, description="weight of each further head")
    start: str | None = Field(None, description="folder or hub id of heads to go on from")

    def check_start(self) -> None:
        """Refuse options of new heads beside heads to go on from.

        Raises:
            OptionError: with the first of them.
        """
        ours = {"step_decay", "start"}
        given = [name for name in type(self).model_fields if name in self.model_fields_set - ours]
        if given and self.start is not None:
            raise OptionError(
                f"{given[0]} is that of the heads in start={self.start!r}: leave it out"
            )

    def drafted(self, target: HFTarget, documents: Documents) -> Tensor | None:
        """The tokens that new heads draft, ``[C]`` int64, ascending; None for all.

        Raises:
            OptionError: a vocabulary of more tokens than the target has.
        """
        if self.draft_vocab_size is not None:
            check_size(self.draft_vocab_size, target, "draft_vocab_size")
        size = self.draft_vocab_size or _VOCABULARY
        if size >= target.vocab_size:
            return None
        return torch.tensor(documents.frequent(size, target.ends), device=target.device)
