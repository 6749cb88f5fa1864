"""The EAGLE-1/2 head as a drafter."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.decoding.interfaces import Needs
from specdec.drafting.draft_vocabulary import (
    DESCRIPTION,
    DraftVocabulary,
    draft_vocabulary,
    lm_head_of,
)
from specdec.drafting.network_drafter import NetworkDrafter
from specdec.errors import OptionError
from specdec.kv_cache.cache_layers import LayerShape
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.hf_target import HFTarget
from specdec_plugins.eagle.checkpoint import check_fit, load_head
from specdec_plugins.eagle.head import EagleHead

NEEDED = (
    "a head: give drafter=<folder or hub id> of one trained for the model, e.g. "
    "'yuhuili/EAGLE-llama2-chat-7B' for Llama-2-7b-chat"
)


class EagleOptions(BaseModel):
    """Options of the drafter ``eagle``."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    checkpoint: str | EagleHead | None = Field(
        None,
        description="folder or hub id of an EAGLE-1/2 head trained for the target model, or a "
        "loaded head",
    )
    dtype: Literal["auto", "float32", "float64", "bfloat16", "float16"] = Field(
        "auto", description="of the head and its copy of the lm_head; auto: the target's"
    )
    vocabulary: DraftVocabulary = Field(None, description=DESCRIPTION)


class EagleDrafter(NetworkDrafter):
    """Drafts at the feature level: pairs of (feature, next token) give the next feature.

    Source: EAGLE (arXiv 2401.15077), section 3; the shift by one token is its figure 6.
    """

    needs = Needs(hidden=True)
    shift = 1

    def __init__(self, options: EagleOptions, target: HFTarget) -> None:
        if options.checkpoint is None:
            raise OptionError(f"the drafter 'eagle' needs {NEEDED}")
        self.target = target
        self.dtype = target.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
        self.head = _head(options.checkpoint, target).to(self.dtype)
        self.network = target.accelerated(self.head)
        self.vocabulary = draft_vocabulary(options.vocabulary, target)
        self.lm_head = lm_head_of(target, self.vocabulary, self.dtype)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        config = self.head.config
        shape = LayerShape(config.num_key_value_heads, config.head_dim, config.head_dim)
        layout = [shape] * config.num_hidden_layers
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
        embeddings = (self.head.embed_tokens or self.target.embed)(tokens)
        if self.dtype != self.target.dtype:
            embeddings = embeddings.to(self.dtype)
            features = features.to(self.dtype) if features is not None else None
        mask = visible[:, None]
        output: Tensor = self.network(embeddings, features, positions, mask, cache=cache)
        return output

    def logits(self, outputs: Tensor) -> Tensor:
        own = outputs if outputs.dtype == self.dtype else outputs.to(self.dtype)
        return self.target.logits(own, self.lm_head)


def _head(checkpoint: str | EagleHead, target: HFTarget) -> EagleHead:
    """The head, loaded or copied from the one that was given."""
    if not isinstance(checkpoint, EagleHead):
        return load_head(checkpoint, target)
    check_fit("that was given", checkpoint.config.to_dict(), target)
    own = copy.deepcopy(checkpoint)
    return own.to(device=target.device, dtype=target.dtype).eval()
