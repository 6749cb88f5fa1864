"""What the recipes of all EAGLE heads share: rows that count, their weights, and agreement."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, Qwen3Config

from specdec.drafting.draft_vocabulary import check_size
from specdec.errors import CheckpointError
from specdec.models.hf_target import HFTarget
from specdec.training.attention_heads import attention_heads
from specdec.training.batch import Batch
from specdec.training.distillation import TargetScores, likeliest
from specdec.training.documents import Documents
from specdec.training.recipe import Recipe
from specdec_plugins.eagle.checkpoint import Head, load_head
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.named_target import NamedTarget
from specdec_plugins.eagle.saving import save_head
from specdec_plugins.eagle.training import EagleTraining
from specdec_plugins.eagle.unrolled import unroll

_MEASURED = 5  # depths at which agreement is measured

HeadT = TypeVar("HeadT", EagleHead, Eagle3Head)


class HeadRecipe(Recipe):
    """A head that reads the target's hidden states and is unrolled for some steps.

    The target's distribution is its lm_head on the kept hidden states; its body never runs.

    Attributes:
        vocabulary: ``[D]`` int64, ascending, the tokens of the cross-entropy; None for all.
        target_logits: of the target's last hidden states.
    """

    steps: int
    decay: float
    by_document: bool

    def __init__(
        self,
        options: EagleTraining,
        target: HFTarget,
        documents: Documents,
        vocabulary: int | None,
    ) -> None:
        if options.draft_vocab_size is not None:
            check_size(options.draft_vocab_size, target, "draft_vocab_size")
        self.options, self.target = options, target
        self.steps = options.unrolled_steps
        self.vocabulary: Tensor | None = None
        if vocabulary is not None:
            ids = documents.frequent(vocabulary, target.ends)
            self.vocabulary = torch.tensor(ids, device=target.device)
        self.target_logits = TargetScores(target)

    @property
    def depths(self) -> int:  # type: ignore[override]
        return max(self.steps, _MEASURED)

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {
            "step_decay": self.decay,
            "by_document": self.by_document,
            "draft_vocab_size": None if self.vocabulary is None else len(self.vocabulary),
            "aux_layers": list(self.needs.aux_layers) or None,
        }

    @abstractmethod
    def features(self, network: Any, batch: Batch) -> Tensor:
        """What the head reads at its first step: ``[B, n, h]``."""

    @abstractmethod
    def drafted(self, network: Any, outputs: Tensor) -> Tensor:
        """The likeliest draft token of ``outputs [M, h]``: ``[M]`` int64."""

    def save(self, network: nn.Module, folder: Path) -> None:
        """In bfloat16, in the layout of the authors' code where that can say what it computes."""
        assert isinstance(network, Head)
        half = copy.deepcopy(network).to(torch.bfloat16)
        save_head(
            half,
            folder,
            target_layers=self.target.layers,
            made_for=NamedTarget.of(self.target),
        )

    def agreement(self, network: nn.Module, batch: Batch) -> Tensor:
        best = batch.best.roll(-1, 1)
        counts = []
        features = self.features(network, batch)
        for step, outputs in enumerate(self.unrolled(network, features, batch, self.depths)):
            counted = self.counted(batch, step)
            drafted = self.drafted(network, outputs[counted])
            counts.append(torch.stack([(drafted == best[counted]).sum(), counted.sum()]))
        return torch.stack(counts)

    def unrolled(
        self, network: Any, features: Tensor, batch: Batch, steps: int
    ) -> Iterator[Tensor]:
        """The outputs ``[B, n, h]`` of each step."""
        tokens = batch.tokens.roll(-1, 1)
        if network.embed_tokens is not None:
            embeddings = network.embed_tokens(tokens)
        else:
            with torch.no_grad():
                embeddings = self.target.embed(tokens).float()
        return unroll(network, embeddings, features, batch, steps)

    def counted(self, batch: Batch, step: int) -> Tensor:
        """``[B, n]`` bool: rows that predict what follows in an answer, by a chain that begins in
        the document."""
        return batch.counted(2) & (batch.positions >= step)

    def learned(self, batch: Batch, step: int) -> Tensor:
        """``[B, n]`` bool: the rows that the loss is of, those whose likeliest next token is in the
        vocabulary: elsewhere the target's distribution over it says little."""
        counted = self.counted(batch, step)
        if self.vocabulary is None:
            return counted
        return counted & torch.isin(batch.best.roll(-1, 1), self.vocabulary)

    def weights(self, batch: Batch, chosen: Tensor) -> Tensor:
        """``[S, M]``, of the rows ``chosen [M]`` of a flattened batch at each step."""
        found = []
        for step in range(self.steps):
            counted = self.learned(batch, step)
            if self.by_document:
                own = batch.document_weights(counted)
            else:
                own = counted / counted.sum().clamp(min=1)
            found.append(self.decay**step * own.flatten()[chosen])
        return torch.stack(found)

    def target_score(self, hidden: Tensor) -> Tensor:
        """The target's logits of its last hidden states, over the vocabulary of the loss."""
        return self.target_logits(hidden, self.vocabulary)

    def likeliest(self, outputs: Tensor) -> Tensor:
        """The likeliest token of all by the target's lm_head."""
        return likeliest(self.target_logits, outputs)


def head_config(target: HFTarget, options: EagleTraining) -> LlamaConfig | Qwen3Config:
    """Sizes of a head for a target of any architecture; a Qwen3Config for norms of queries and
    keys.

    Raises:
        OptionError: attention heads that the hidden size cannot be divided among.
    """
    theirs, hidden = target.config, target.hidden_size
    heads, width = theirs.num_attention_heads, getattr(theirs, "head_dim", None)
    if options.heads or not width or hidden % (2 * heads) == 0:
        heads = attention_heads(hidden, options.heads, heads, f"the hidden size {hidden}")
        width = hidden // heads
    shared = getattr(theirs, "num_key_value_heads", None) or heads
    sizes = options.intermediate_size or getattr(theirs, "intermediate_size", None)
    kind = Qwen3Config if options.qk_norm else LlamaConfig
    return kind(
        hidden_size=hidden,
        intermediate_size=sizes if isinstance(sizes, int) else 8 * hidden // 3,
        num_attention_heads=heads,
        num_key_value_heads=shared if heads % shared == 0 else heads,
        head_dim=width,
        num_hidden_layers=options.layers,
        vocab_size=target.vocab_size,
        max_position_embeddings=min(target.context_limit, 1 << 17),
        rms_norm_eps=getattr(theirs, "rms_norm_eps", None) or 1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": _rope_base(theirs)},
    )


def _rope_base(config: Any) -> float:
    """The target's base of rope, where it has one."""
    rope = getattr(config, "rope_parameters", None) or {}
    base = rope.get("rope_theta") or getattr(config, "rope_theta", None)
    return float(base) if isinstance(base, (int, float)) else 10000.0


def quieten(layers: nn.ModuleList) -> None:
    """Let the branches of new decoder layers begin at zero: they add nothing at first."""
    for layer in layers:
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            nn.init.zeros_(layer.get_submodule(name).get_parameter("weight"))


def begun_from(checkpoint: str, target: HFTarget, kind: type[HeadT]) -> HeadT:
    """The head that training goes on from.

    Raises:
        CheckpointError: one that does not fit the target, or of another family than the recipe's.
    """
    head = load_head(checkpoint, target)
    if not isinstance(head, kind):
        recipes = "recipe='eagle3'" if kind is EagleHead else "'eagle1' or 'unrolled' as recipe"
        raise CheckpointError(
            f"the head in {checkpoint} is of another family than the recipe: go on from it with "
            f"{recipes}"
        )
    return head
