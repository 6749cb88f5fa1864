"""The drafter ``draft_model``: a small language model with the target's tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from specdec.decoding.frontier import Frontier
from specdec.drafting.draft_vocabulary import DESCRIPTION, DraftVocabulary, draft_vocabulary
from specdec.drafting.network_drafter import NetworkDrafter
from specdec.drafting.projections import lm_head_of
from specdec.errors import OptionError
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.checkpoints import load_model, load_tokenizer, resolve_model
from specdec.models.checks.tree_attention import TreeCheck
from specdec.models.hf_target import HFTarget
from specdec.models.loaded_model import check_suitable, own_copy
from specdec_plugins.sampling.common_tokens import common_tokens

NEEDED = (
    "a model: give drafter=<folder or hub id> of a small causal language model with the target's "
    "vocabulary, or the loaded model"
)


class DraftModelOptions(BaseModel):
    """Options of the drafter ``draft_model``."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    checkpoint: str | PreTrainedModel | None = Field(
        None,
        description="folder or hub id of a causal language model with the target's vocabulary, or "
        "a loaded one",
    )
    vocabulary: DraftVocabulary = Field(None, description=DESCRIPTION)
    trust_remote_code: bool = Field(
        False,
        strict=True,
        description="whether Python code that comes with the checkpoint may run",
    )


class DraftModel(NetworkDrafter):
    """A causal language model that shares the target's tokens.

    Vocabularies of different size are right where one is a beginning of the other (padding, or
    tokens that only one has): see :func:`~specdec_plugins.sampling.common_tokens.common_tokens`.

    Args:
        target: the model that verifies.
        model: the model that drafts.
        vocabulary: the tokens that it drafts among; all that both have if left out.

    Raises:
        CheckpointError: a vocabulary that is not the target's.
    """

    def __init__(
        self, target: HFTarget, model: HFTarget, vocabulary: DraftVocabulary = None
    ) -> None:
        common = common_tokens(target, model)
        self.model = model
        self.windowed = model.mask_form.windowed
        smaller = target if target.vocab_size == common else model
        self.vocabulary = draft_vocabulary(vocabulary, smaller)
        if self.vocabulary is None and model.vocab_size > common:
            self.vocabulary = torch.arange(common, device=model.device)
        self.lm_head = lm_head_of(model, self.vocabulary, model.dtype)
        if self.vocabulary is None and target.vocab_size > common:
            self.vocabulary = torch.arange(common, device=model.device)
        # Of tokens that the target alone has the model reads its last one: drafts need not be good.
        self._last = model.vocab_size - 1 if target.vocab_size > model.vocab_size else None

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        return self.model.new_cache(rows, capacity)

    def forward(
        self,
        tokens: Tensor,
        features: Tensor | None,
        positions: Tensor,
        visible: Tensor,
        cache: KVCache,
        scratch_positions: Tensor | None,
    ) -> Tensor:
        tokens = self._known(tokens)
        return self.model.forward_on(tokens, positions, visible, cache, scratch_positions).last

    def prefill(self, tokens: Tensor, features: Tensor | None, cache: KVCache) -> Tensor:
        return self.model.prefill(self._known(tokens), cache).last

    def _known(self, tokens: Tensor) -> Tensor:
        """The tokens as the model reads them."""
        return tokens if self._last is None else tokens.clamp(max=self._last)

    def logits_at(self, outputs: Tensor, frontier: Frontier) -> Tensor:
        return self.model.logits(outputs, self.lm_head)


def make_draft_model(options: DraftModelOptions, target: HFTarget) -> DraftModel:
    """The factory that the registry calls."""
    if options.checkpoint is None:
        raise OptionError(f"the drafter 'draft_model' needs {NEEDED}")
    model, tokenizer = _load(options.checkpoint, target, options.trust_remote_code)
    check_suitable(model)
    wrapped = HFTarget(model, acceleration=target.acceleration)
    if wrapped.ranks and not target.ranks:
        raise OptionError(
            "the draft model is sharded over several processes and the target is not: load the "
            "draft model whole, or the target in the same way"
        )
    wrapped.tokenizer = tokenizer
    drafter = DraftModel(target, wrapped, options.vocabulary)
    TreeCheck.at_load(drafter.model)
    return drafter


def _load(
    checkpoint: str | PreTrainedModel, target: HFTarget, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """The draft model as the target runs, and its tokenizer if that can be found."""
    if isinstance(checkpoint, PreTrainedModel):
        check_suitable(checkpoint)
        folder = Path(checkpoint.config.name_or_path or "nowhere")
        model = own_copy(checkpoint, target.dtype, target.device)
    else:
        folder = resolve_model(checkpoint, what="draft model", trust_remote_code=trust_remote_code)
        model = load_model(
            folder,
            dtype=target.dtype,
            device=target.device,
            trust_remote_code=trust_remote_code,
        )
    return model, load_tokenizer(folder, trust_remote_code=trust_remote_code)
