"""Hydra heads as drafter: each level reads the path that it hangs from."""

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
from specdec.kv_cache.cache_layers import LayerShape
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.attention_mask import MaskForm
from specdec.models.filling import check_tensors
from specdec.models.hf_target import HFTarget
from specdec_plugins.hydra.checkpoint import WHAT, check_fit, load_heads
from specdec_plugins.hydra.heads import HydraHeads

NEEDED = (
    "Hydra heads: give drafter=<folder or hub id> of some trained for the model, or make them with "
    "`specdec train hydra`"
)


class HydraOptions(BaseModel):
    """Options of the drafter ``hydra``."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    checkpoint: str | HydraHeads | None = Field(
        None,
        description="folder or hub id of Hydra or Hydra++ heads trained for the target model, or "
        "loaded ones",
    )
    dtype: Literal["auto", "float32", "float64", "bfloat16", "float16"] = Field(
        "auto", description="of the heads; auto: the target's"
    )
    vocabulary: DraftVocabulary = Field(None, description=DESCRIPTION)


class HydraDrafter(NetworkDrafter):
    """Drafts token t + 2 + d at depth d of the tree from the hidden state at token t, the one
    before the root, and the embeddings of the root and the d draft tokens on the node's path.

    Below the last head there is no opinion, so a tree ends there. With a prefix layer committed
    hidden states are read through it, into a cache of its own; draft tokens never are.

    Args:
        heads: fit the target, on its device.

    Source: Hydra (arXiv 2402.05109), sections 3 and 5.
    """

    shift = 1
    reads_drafts: ClassVar[bool] = False
    needs = Needs(hidden=True)

    def __init__(self, heads: HydraHeads, options: HydraOptions, target: HFTarget) -> None:
        self.target, self.heads = target, heads
        named = None if options.dtype == "auto" else getattr(torch, options.dtype)
        self.dtype: torch.dtype = named or target.dtype
        heads.to(self.dtype)
        self._mlps = [target.accelerated(mlp) for mlp in heads.hydra_mlp]
        self._prefix = heads.prefix_embeding_layer
        if self._prefix is not None:
            self._masks = MaskForm.of(self._prefix.config)
            self._prefix_network = target.accelerated(self._prefix)
        wanted, own = draft_vocabulary(options.vocabulary, target), heads.vocabulary
        rows = drafted_rows(own, wanted)
        self.vocabulary = wanted if own is None else own if rows is None else own[rows]
        if heads.sizes.projection == "target":
            self._projections = [lm_head_of(target, self.vocabulary, self.dtype)]
        else:
            self._projections = [projection_of(each, rows, target) for each in heads.hydra_lm_head]

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """Of the prefix layer; without one it has no layers and counts what has been read."""
        layout = []
        if self._prefix is not None:
            sizes = self._prefix.sizes
            layout = [LayerShape(sizes.num_key_value_heads, sizes.head_dim, sizes.head_dim)]
        bucket = self.target.acceleration.bucket
        return KVCache(layout, rows, capacity, self.dtype, self.target.device, bucket)

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
        hidden = features.to(self.dtype)
        if self._prefix is None:
            return hidden
        mask = self._masks.build(visible, positions, positions, self.dtype)
        output: Tensor = self._prefix_network(hidden, positions, mask, cache=cache)
        return output

    def logits(self, outputs: Tensor) -> Tensor:
        raise NotImplementedError("a Hydra head reads the root too: see logits_at")

    def logits_at(self, outputs: Tensor, frontier: Frontier) -> Tensor:
        depth, sizes = frontier.depth, self.heads.sizes
        if depth >= sizes.heads:
            columns = sizes.vocab_size if self.vocabulary is None else len(self.vocabulary)
            shape = (*frontier.tokens.shape, columns)
            return torch.full(shape, float("-inf"), dtype=self.dtype, device=outputs.device)
        embeddings = self.target.embed(frontier.paths).to(self.dtype)
        hidden = outputs.expand(-1, frontier.width, -1)
        read = torch.cat([hidden, embeddings.flatten(-2)], dim=-1)
        output = self._mlps[depth](read)
        if sizes.projection == "target":
            return self.target.logits(output, self._projections[0])
        logits: Tensor = self._projections[min(depth, len(self._projections) - 1)](output)
        return logits


def make_hydra(options: HydraOptions, target: HFTarget) -> HydraDrafter:
    """The factory that the registry calls.

    Raises:
        OptionError: no checkpoint.
        CheckpointError: as for :func:`~specdec_plugins.hydra.checkpoint.load_heads`.
    """
    given = options.checkpoint
    if given is None:
        raise OptionError(f"the drafter 'hydra' needs {NEEDED}")
    if isinstance(given, str):
        dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
        return HydraDrafter(load_heads(given, target, dtype), options, target)
    try:
        check_fit(given.sizes, target)
        own = copy.deepcopy(given).to(target.device).eval()
        check_tensors(own, own.state_dict(), {}, WHAT)
    except CheckpointError as error:
        raise CheckpointError(f"the heads that were given: {error}") from error
    return HydraDrafter(own, options, target)
