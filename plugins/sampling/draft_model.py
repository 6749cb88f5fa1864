"""Standard speculative sampling: a small language model drafts, its drafts are sampled from q."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import PreTrainedModel

from specdec.cache import KVCache
from specdec.checkpoints import load_model
from specdec.drafters import NetworkDrafter
from specdec.errors import CheckpointError, OptionError
from specdec.growth import Growth, Proposal, sample, sample_without_replacement
from specdec.roles import TreePolicy
from specdec.target import HFTarget
from specdec.treecheck import TreeCheck
from specdec.vocabulary import DESCRIPTION, DraftVocabulary, draft_vocabulary, lm_head_of


class DraftModelOptions(BaseModel):
    """Options of the drafter ``draft_model``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str | None = Field(
        None, description="folder or hub id of a causal language model with the target's vocabulary"
    )
    vocabulary: DraftVocabulary = Field(None, description=DESCRIPTION)


class DraftModel(NetworkDrafter):
    """A causal language model of the target's vocabulary.

    Args:
        target: the model that verifies.
        model: the model that drafts.
        vocabulary: the tokens that it drafts among; all of them if left out.

    Raises:
        CheckpointError: a vocabulary that is not the target's.
    """

    def __init__(
        self, target: HFTarget, model: HFTarget, vocabulary: DraftVocabulary = None
    ) -> None:
        if model.vocab_size != target.vocab_size:
            raise CheckpointError(
                f"the draft model has a vocabulary of {model.vocab_size} tokens, the target model "
                f"one of {target.vocab_size}: draft tokens must mean the same to both"
            )
        self.model = model
        self.windowed = model.mask_form.windowed
        self.vocabulary = draft_vocabulary(vocabulary, model)
        self.lm_head = lm_head_of(model, self.vocabulary, model.dtype)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        return self.model.new_cache(rows, capacity)

    def forward(
        self,
        tokens: Tensor,
        features: Tensor | None,
        positions: Tensor,
        visible: Tensor,
        scratch_positions: Tensor | None,
    ) -> Tensor:
        return self.model.forward_on(tokens, positions, visible, self.cache, scratch_positions).last

    def logits(self, outputs: Tensor) -> Tensor:
        return self.model.logits(outputs, self.lm_head)


def make_draft_model(options: DraftModelOptions, target: HFTarget) -> DraftModel:
    """The factory that the registry calls."""
    if options.checkpoint is None:
        raise OptionError(
            "the drafter 'draft_model' needs a model: give drafter=<folder or hub id> of a small "
            "causal language model with the target's vocabulary"
        )
    checkpoint = options.checkpoint
    model: PreTrainedModel = load_model(checkpoint, dtype=target.dtype, device=target.device)
    drafter = DraftModel(
        target, HFTarget(model, acceleration=target.acceleration), options.vocabulary
    )
    TreeCheck.at_load(drafter.model)
    return drafter


class SampledOptions(BaseModel):
    """Options of the tree policy ``sampled``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: int = Field(4, ge=1, le=64, description="levels of draft tokens below the root")
    width: int = Field(
        1, ge=1, le=8, description="draws at the root; every draw goes on as a chain"
    )
    replacement: bool = Field(
        True, description="draw siblings independently; false: without replacement"
    )


class Sampled(TreePolicy):
    """Draft tokens sampled from q: a chain, or several that part at the root.

    Source: Leviathan et al. (arXiv 2211.17192); several drafts as in SpecTr (arXiv 2310.15141).
    """

    def __init__(self, options: SampledOptions) -> None:
        self.levels, self.width = options.depth, options.width
        self._draw = sample if options.replacement else sample_without_replacement

    def expand(self, growth: Growth, proposal: Proposal) -> None:
        self._draw(growth, proposal, self.width if growth.depth == 0 else 1)
        growth.advance(torch.arange(self.width, device=proposal.logits.device))
