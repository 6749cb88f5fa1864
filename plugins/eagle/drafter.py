"""EAGLE heads as drafters."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from specdec.decoding.drafter_report import DrafterReport
from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import Needs
from specdec.drafting.draft_vocabulary import DESCRIPTION, DraftVocabulary, draft_vocabulary
from specdec.drafting.network_drafter import NetworkDrafter
from specdec.drafting.projections import drafted_rows, lm_head_of, projection_of
from specdec.errors import CheckpointError, OptionError
from specdec.kv_cache.cache_layers import LayerShape
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.attention_mask import Mask, MaskForm
from specdec.models.hf_target import HFTarget
from specdec.models.hidden_states import HiddenStates
from specdec.models.tensor_loading import check_values
from specdec_plugins.eagle.checkpoint import Head, check_fit, load_head, tensors_of
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.overrides import Overrides
from specdec_plugins.eagle.self_check import check

NEEDED = (
    "a head: give drafter=<folder or hub id> of one trained for the model, e.g. "
    "'yuhuili/EAGLE-llama2-chat-7B' for Llama-2-7b-chat, or make one with `specdec train eagle`"
)
NEEDED_3 = (
    "an EAGLE-3 head: give drafter=<folder or hub id> of one trained for the model, e.g. "
    "'yuhuili/EAGLE3-LLaMA3.1-Instruct-8B' for Llama-3.1-8B-Instruct, or make one with "
    "`specdec train eagle`"
)


class EagleOptions(Overrides):
    """Options of the drafter ``eagle``."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    checkpoint: str | EagleHead | Eagle3Head | None = Field(
        None,
        description="folder or hub id of an EAGLE head trained for the target model, or a loaded "
        "head",
    )
    dtype: Literal["auto", "float32", "float64", "bfloat16", "float16"] = Field(
        "auto", description="of the head and its lm_head; auto: the target's"
    )
    vocabulary: DraftVocabulary = Field(None, description=DESCRIPTION)

    def dtype_for(self, target: HFTarget) -> torch.dtype:
        """That of the head and its lm_head."""
        named: torch.dtype = getattr(torch, self.dtype) if self.dtype != "auto" else target.dtype
        return named


class Eagle3Options(EagleOptions):
    """Options of the drafter ``eagle3``."""

    checkpoint: str | Eagle3Head | None = Field(
        None,
        description="folder or hub id of an EAGLE-3 head trained for the target model, or a loaded "
        "head",
    )


class EagleDrafter(NetworkDrafter):
    """Drafts at the feature level: pairs of (feature, next token) give the next feature.

    An EAGLE-1/2 head reads the input of the target's lm_head, predicts it, and the target's lm_head
    gives the draft distribution. An EAGLE-3 head reads hidden states of several layers, fused to
    its own width, and has an lm_head of its own.

    Args:
        head: fits the target (:func:`~specdec_plugins.eagle.checkpoint.check_fit`).

    Attributes:
        masks: the form in which its layers take their mask.
        from_files: whether it was read from files, so that options say how.

    Source: EAGLE (arXiv 2401.15077), section 3; the shift by one token is its figure 6. EAGLE-3
    (arXiv 2503.01840), section 3.
    """

    shift = 1

    def __init__(self, head: Head, options: EagleOptions, target: HFTarget) -> None:
        self.target, self.options = target, options
        self.dtype = options.dtype_for(target)
        self.head = head.to(self.dtype)
        wanted = draft_vocabulary(options.vocabulary, target)
        if isinstance(head, Eagle3Head):
            self.needs = Needs(hidden=True, aux_layers=head.aux_layers)
            self.network = target.accelerated(head.decoder)
            self.fusion = head.fusion if head.fusion.fc is None else target.accelerated(head.fusion)
            own = None if len(head.vocabulary) == target.vocab_size else head.vocabulary
            rows, self.vocabulary = drafted_rows(own, wanted)
            self.lm_head = projection_of(head.lm_head, rows, target)
        else:
            self.needs = Needs(hidden=True)
            self.network = target.accelerated(head)
            self.vocabulary = wanted
            self.lm_head = lm_head_of(target, wanted, self.dtype)
        self.masks = MaskForm.of(head.config)
        self.from_files = isinstance(options.checkpoint, str)
        self.windowed = self.masks.windowed

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        config = self.head.config
        shape = LayerShape(config.num_key_value_heads, config.head_dim, config.head_dim)
        layout = [shape] * config.num_hidden_layers
        bucket = self.target.acceleration.bucket
        return KVCache(layout, rows, capacity, self.dtype, self.target.device, bucket)

    def features(self, hidden: HiddenStates) -> Tensor:
        return self.head.features(hidden) if isinstance(self.head, Eagle3Head) else hidden.last

    def fuse(self, features: Tensor) -> Tensor:
        if not isinstance(self.head, Eagle3Head):
            return features
        fused: Tensor = self.fusion(features.to(self.dtype))
        return fused

    def forward(
        self,
        tokens: Tensor,
        features: Tensor | None,
        positions: Tensor,
        visible: Tensor,
        cache: KVCache,
        scratch_positions: Tensor | None,
    ) -> Tensor:
        slots = positions  # of no account without a window
        if self.windowed and scratch_positions is not None:
            slots = cache.slot_positions(scratch_positions)
        mask = self.masks.build(visible, positions, slots, self.dtype)
        return self._run(tokens, features, positions, mask, cache)

    def prefill(self, tokens: Tensor, features: Tensor | None, cache: KVCache) -> Tensor:
        batch, n = tokens.shape
        positions = torch.arange(n, device=tokens.device).expand(batch, -1)
        cache.reserve_prefix(n)
        mask = self.masks.causal(positions, self.dtype)
        return self._run(tokens, features, positions, mask, cache)

    def _run(
        self,
        tokens: Tensor,
        features: Tensor | None,
        positions: Tensor,
        mask: Mask | None,
        cache: KVCache,
    ) -> Tensor:
        embeddings = (self.head.embed_tokens or self.target.embed)(tokens)
        if self.dtype != self.target.dtype:
            embeddings = embeddings.to(self.dtype)
            features = features.to(self.dtype) if features is not None else None
        output: Tensor = self.network(embeddings, features, positions, mask, cache=cache)
        return output

    def logits_at(self, outputs: Tensor, frontier: Frontier) -> Tensor:
        return self.logits(outputs)

    def logits(self, outputs: Tensor) -> Tensor:
        """Draft logits ``[B, n, C]`` of ``outputs [B, n, h]``."""
        own = outputs if outputs.dtype == self.dtype else outputs.to(self.dtype)
        if isinstance(self.head, Eagle3Head):
            scored: Tensor = self.lm_head(self.head.normed(own))
            return scored
        return self.target.logits(own, self.lm_head)

    def report(self, text: Tensor, start: int) -> DrafterReport:
        return check(self, text, start)


def make_eagle(options: EagleOptions, target: HFTarget) -> EagleDrafter:
    """The factory of ``eagle``: a head of any EAGLE family."""
    if options.checkpoint is None:
        raise OptionError(f"the drafter 'eagle' needs {NEEDED}")
    return EagleDrafter(_head(options, target), options, target)


def make_eagle3(options: Eagle3Options, target: HFTarget) -> EagleDrafter:
    """The factory of ``eagle3``: an EAGLE-3 head and no other."""
    if options.checkpoint is None:
        raise OptionError(f"the drafter 'eagle3' needs {NEEDED_3}")
    head = _head(options, target)
    if not isinstance(head, Eagle3Head):
        raise CheckpointError(
            f"the head in {options.checkpoint} is one of EAGLE-1/2, and the drafter 'eagle3' takes "
            "those of EAGLE-3 alone: use strategy='eagle2', or drafter='eagle' with the option "
            "checkpoint"
        )
    return EagleDrafter(head, options, target)


def _head(options: EagleOptions, target: HFTarget) -> Head:
    """The head, loaded or copied from the one that was given."""
    given, dtype = options.checkpoint, options.dtype_for(target)
    if isinstance(given, str):
        flags = {name: getattr(options, name) for name in options.given()}
        return load_head(given, target, dtype=dtype, **flags)
    assert given is not None
    if told := options.given():
        raise OptionError(
            f"drafter.{told[0]}: the head that was given is loaded already; give its folder"
        )
    try:
        check_fit(given, target)
        own = copy.deepcopy(given).to(device=target.device, dtype=dtype).eval()
        check_values(tensors_of(own))
    except CheckpointError as error:
        raise CheckpointError(f"the head that was given: {error}") from error
    return own
