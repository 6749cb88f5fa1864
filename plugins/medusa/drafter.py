"""Medusa heads as drafter: every depth from the hidden state before the root."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Needs
from specdec.drafting.draft_vocabulary import (
    DESCRIPTION,
    DraftVocabulary,
    draft_vocabulary,
    lm_head_of,
)
from specdec.drafting.network_drafter import NetworkDrafter
from specdec.drafting.projections import drafted_rows, projection_of
from specdec.errors import CheckpointError, OptionError
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.filling import check_tensors
from specdec.models.hf_target import HFTarget
from specdec_plugins.medusa.checkpoint import WHAT, check_fit, load_heads
from specdec_plugins.medusa.heads import MedusaHeads

NEEDED = (
    "Medusa heads: give drafter=<folder or hub id> of some trained for the model, e.g. "
    "'FasterDecoding/medusa-vicuna-7b-v1.3' for vicuna-7b-v1.3, or make them with "
    "`specdec train medusa`"
)


class MedusaOptions(BaseModel):
    """Options of the drafter ``medusa``."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    checkpoint: str | MedusaHeads | None = Field(
        None,
        description="folder or hub id of Medusa heads trained for the target model, or loaded ones",
    )
    dtype: Literal["auto", "float32", "float64", "bfloat16", "float16"] = Field(
        "auto", description="of the heads; auto: the target's"
    )
    vocabulary: DraftVocabulary = Field(None, description=DESCRIPTION)


class MedusaDrafter(NetworkDrafter):
    """Drafts token t + 2 + d at depth d of the tree from the target's last hidden state at token t,
    the one before the root.

    The draft distribution of a level is the same at all its nodes. Below the last head there is no
    opinion, so a tree ends there.

    Args:
        heads: fit the target, on its device.

    Source: Medusa (arXiv 2401.10774), section 2.1.
    """

    shift = 1
    reads_drafts: ClassVar[bool] = False
    needs = Needs(hidden=True)

    def __init__(self, heads: MedusaHeads, options: MedusaOptions, target: HFTarget) -> None:
        self.target, self.heads = target, heads
        named = None if options.dtype == "auto" else getattr(torch, options.dtype)
        self.dtype: torch.dtype = named or target.dtype
        heads.to(self.dtype)
        self._blocks = [target.accelerated(block) for block in heads.blocks]
        wanted, own = draft_vocabulary(options.vocabulary, target), heads.vocabulary
        rows = drafted_rows(own, wanted)
        self.vocabulary = wanted if own is None else own if rows is None else own[rows]
        if heads.sizes.projection == "target":
            self._projections = [lm_head_of(target, self.vocabulary, self.dtype)]
        else:
            self._projections = [projection_of(each, rows, target) for each in heads.lm_heads]

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """It has no layers: what counts is how many tokens have been read."""
        return KVCache([], rows, capacity, self.dtype, self.target.device)

    def forward(
        self,
        tokens: Tensor,
        features: Tensor | None,
        positions: Tensor,
        visible: Tensor,
        cache: KVCache,
        scratch_positions: Tensor | None,
    ) -> Tensor:
        assert features is not None
        return features

    def logits(self, outputs: Tensor) -> Tensor:
        """Of the first head."""
        return self.logits_of(0, outputs)

    def logits_at(self, outputs: Tensor, frontier: Frontier) -> Tensor:
        logits = self.logits_of(min(frontier.depth, self.heads.sizes.heads - 1), outputs)
        if frontier.depth >= self.heads.sizes.heads:
            logits = torch.full_like(logits, float("-inf"))
        return logits.expand(-1, frontier.width, -1)

    def logits_of(self, head: int, hidden: Tensor) -> Tensor:
        """Draft logits ``[..., C]`` of one head on hidden states ``[..., H]``."""
        output = self._blocks[head](hidden.to(self.dtype))
        if self.heads.sizes.projection == "target":
            return self.target.logits(output, self._projections[0])
        logits: Tensor = self._projections[min(head, len(self._projections) - 1)](output)
        return logits


def make_medusa(options: MedusaOptions, target: HFTarget) -> MedusaDrafter:
    """The factory that the registry calls.

    Raises:
        OptionError: no checkpoint.
        CheckpointError: as for :func:`~specdec_plugins.medusa.checkpoint.load_heads`.
    """
    given = options.checkpoint
    if given is None:
        raise OptionError(f"the drafter 'medusa' needs {NEEDED}")
    if isinstance(given, str):
        dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
        return MedusaDrafter(load_heads(given, target, dtype), options, target)
    try:
        check_fit(given.sizes, target)
        own = copy.deepcopy(given).to(target.device).eval()
        check_tensors(own, own.state_dict(), {}, WHAT)
    except CheckpointError as error:
        raise CheckpointError(f"the heads that were given: {error}") from error
    return MedusaDrafter(own, options, target)
