"""Drafters of heads that draft one depth each from what was read last."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Needs
from specdec.drafting.draft_vocabulary import DESCRIPTION, DraftVocabulary, draft_vocabulary
from specdec.drafting.network_drafter import NetworkDrafter
from specdec.drafting.projections import drafted_rows, lm_head_of, projection_of
from specdec.errors import OptionError
from specdec.kv_cache.cache_layers import LayerShape
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.heads.depth_heads import DepthHeads
from specdec.models.heads.kind import HeadsKind
from specdec.models.hf_target import HFTarget
from specdec.plugin.components import Component


class HeadsOptions(BaseModel):
    """Options of such a drafter; each says what its ``checkpoint`` may be."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    checkpoint: str | DepthHeads | None = Field(None, description="heads for the target model")
    dtype: Literal["auto", "float32", "float64", "bfloat16", "float16"] = Field(
        "auto", description="of the heads; auto: the target's"
    )
    vocabulary: DraftVocabulary = Field(None, description=DESCRIPTION)

    def dtype_for(self, target: HFTarget) -> torch.dtype:
        """That of the heads."""
        named: torch.dtype = getattr(torch, self.dtype) if self.dtype != "auto" else target.dtype
        return named


class HeadsDrafter(NetworkDrafter):
    """Drafts at depth d of the tree with the head of index d, from the target's last hidden state
    before the root.

    A subclass gives :meth:`outputs_at`, and :meth:`read` and :meth:`cache_layers` where committed
    hidden states go through layers first. Below the last head the drafter abstains, so a tree
    ends there.

    Args:
        heads: fit the target, on its device, in the dtype of the options.
    """

    shift = 1
    reads_drafts: ClassVar[bool] = False
    needs = Needs(hidden=True)

    def __init__(self, heads: DepthHeads, options: HeadsOptions, target: HFTarget) -> None:
        self.target, self.sizes, self.dtype = target, heads.sizes, options.dtype_for(target)
        wanted = draft_vocabulary(options.vocabulary, target)
        rows, self.vocabulary = drafted_rows(heads.vocabulary, wanted)
        if self.sizes.projection == "target":
            self._projections = [lm_head_of(target, self.vocabulary, self.dtype)]
        else:
            self._projections = [projection_of(each, rows, target) for each in heads.projections]

    @abstractmethod
    def outputs_at(self, read: Tensor, frontier: Frontier) -> Tensor:
        """What the projection of the frontier's head reads, ``[B, n, H]``, or ``[B, 1, H]`` where
        that is the same at all n nodes.

        Args:
            read: ``[B, 1, H]``, what :meth:`read` gives of the token before the root.
        """

    def cache_layers(self) -> list[LayerShape]:
        """Of the layers that :meth:`read` has; none."""
        return []

    def read(self, hidden: Tensor, positions: Tensor, visible: Tensor, cache: KVCache) -> Tensor:
        """Committed hidden states ``[B, n, H]`` as the heads read them; arguments as for
        :meth:`forward`."""
        return hidden

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """Without layers it counts how many tokens have been read."""
        target = self.target
        layout, bucket = self.cache_layers(), target.acceleration.bucket
        return KVCache(layout, rows, capacity, self.dtype, target.device, bucket)

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
        return self.read(features.to(self.dtype), positions, visible, cache)

    def logits_at(self, outputs: Tensor, frontier: Frontier) -> Tensor:
        depth, sizes = frontier.depth, self.sizes
        if depth >= sizes.heads:
            columns = sizes.vocab_size if self.vocabulary is None else len(self.vocabulary)
            shape = (*frontier.tokens.shape, columns)
            return torch.full(shape, float("-inf"), dtype=self.dtype, device=outputs.device)
        output = self.outputs_at(outputs, frontier)
        projection = self._projections[min(depth, len(self._projections) - 1)]
        if sizes.projection == "target":
            logits = self.target.logits(output, projection)
        else:
            logits = projection(output)
        return logits.expand(-1, frontier.width, -1)


def heads_component(
    name: str,
    drafter: type[HeadsDrafter],
    options: type[HeadsOptions],
    kind: HeadsKind[Any],
    needed: str,
    description: str,
) -> Component:
    """Such a drafter as a plugin registers it.

    Args:
        drafter: made of heads, options and target.
        needed: what is missing without a checkpoint, as the end of a sentence.
    """

    def make(given: HeadsOptions, target: HFTarget) -> HeadsDrafter:
        if given.checkpoint is None:
            raise OptionError(f"the drafter {name!r} needs {needed}")
        heads = kind.load(given.checkpoint, target, given.dtype_for(target))
        return drafter(heads, given, target)

    return Component(
        name,
        make,
        options,
        description,
        needs_checkpoint=needed,
        recognises=kind.recognises,
    )
