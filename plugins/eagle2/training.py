"""Trainer of EAGLE heads: the recipes ``eagle1`` and ``unrolled``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from transformers import LlamaConfig

from specdec.decoding.interfaces import Needs
from specdec.drafting.draft_vocabulary import lm_head_of
from specdec.errors import OptionError
from specdec.models.hf_target import HFTarget
from specdec.training.batch import Batch
from specdec.training.distillation import cross_entropy, likeliest
from specdec.training.documents import Documents
from specdec.training.precision import dtype_within
from specdec.training.recipe import Recipe
from specdec_plugins.eagle2.checkpoint import load_head, save_head
from specdec_plugins.eagle2.head import EagleHead
from specdec_plugins.eagle2.unrolled import unroll

_MEASURED = 5  # depths at which agreement is measured
_FEATURE_WEIGHT = {"eagle1": 1.0, "unrolled": 0.1}
_ENTROPY_WEIGHT = {"eagle1": 0.1, "unrolled": 1.0}


class EagleTraining(BaseModel):
    """Options of the trainer ``eagle``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Literal["eagle1", "unrolled"] = Field(
        "unrolled",
        description="eagle1: one step on noisy features, their distance and a tenth of the "
        "cross-entropy; unrolled: several steps on the head's own outputs, cross-entropy first",
    )
    unrolled_steps: int = Field(3, ge=1, le=16, description="steps of the recipe unrolled")
    step_decay: float = Field(0.9, gt=0, le=1, description="weight of each further step")
    feature_weight: float | None = Field(
        None, ge=0, description="of the distance of features; default: 1 for eagle1, else 0.1"
    )
    entropy_weight: float | None = Field(
        None, ge=0, description="of the cross-entropy; default: 0.1 for eagle1, else 1"
    )
    noise: float = Field(
        0.2, ge=0, description="eagle1: width of the uniform noise on the features that are read"
    )
    by_document: bool = Field(
        False, description="every document counts the same, whatever the length of its answers"
    )
    vocabulary: int | None = Field(
        None,
        ge=2,
        description="cross-entropy over so many of the most frequent tokens of the answers only: "
        "faster with a large vocabulary",
    )
    layers: int = Field(1, ge=1, le=8, description="decoder layers of the head")
    heads: int | None = Field(None, ge=1, description="attention heads; default: the target's")
    intermediate_size: int | None = Field(
        None, ge=1, description="channels of the MLP; default: the target's"
    )
    start: str | None = Field(None, description="folder or hub id of a head to go on from")


class EagleRecipe(Recipe):
    """An EAGLE-1/2 head, on the target's last hidden states.

    The target's distribution is its lm_head on the kept hidden states; its body never runs.

    Source: EAGLE (arXiv 2401.15077), section 4.1, for ``eagle1``.
    """

    strategy = "eagle2"
    needs = Needs(hidden=True)

    def __init__(self, options: EagleTraining, target: HFTarget, documents: Documents) -> None:
        self.options, self.target = options, target
        self.steps = 1 if options.recipe == "eagle1" else options.unrolled_steps
        self.depths = max(self.steps, _MEASURED)
        self._lm_heads: dict[tuple[bool, torch.dtype], nn.Module] = {}
        self._vocabulary: Tensor | None = None
        if options.vocabulary is not None:
            ids = documents.frequent(options.vocabulary)
            self._vocabulary = torch.tensor(ids, device=target.device)
        self._entropy = _given(options.entropy_weight, _ENTROPY_WEIGHT[options.recipe])
        self._distance = _given(options.feature_weight, _FEATURE_WEIGHT[options.recipe])

    def make(self) -> EagleHead:
        """A head of the target's sizes; the branches of its layers start at zero."""
        if self.options.start is not None:
            return load_head(self.options.start, self.target).float().train()
        head = EagleHead(head_config(self.target, self.options), fc_bias=False)
        for layer in head.layers:
            nn.init.zeros_(layer.get_submodule("self_attn.o_proj").get_parameter("weight"))
            nn.init.zeros_(layer.get_submodule("mlp.down_proj").get_parameter("weight"))
        return head.to(self.target.device).train()

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        wanted = batch.hidden.last.roll(-1, 1)
        chosen = batch.counted(2).flatten().nonzero()[:, 0]
        noise = self.options.noise if self.options.recipe == "eagle1" else 0.0
        outputs = torch.stack(
            [
                each.flatten(0, 1)[chosen]
                for each in self._unrolled(network, batch, self.steps, noise)
            ]
        )
        weights = torch.stack(
            [
                self.options.step_decay**step * self._weights(batch, step).flatten()[chosen]
                for step in range(self.steps)
            ]
        )
        features = wanted.flatten(0, 1)[chosen]
        total = torch.zeros((), device=outputs.device)
        if self._entropy:
            total = total + self._entropy * cross_entropy(
                self._score, outputs, self._score, features, weights
            )
        if self._distance:
            apart = smooth_l1_loss(
                outputs.float(), features.float().expand_as(outputs), reduction="none"
            )
            total = total + self._distance * (weights * apart.mean(-1)).sum()
        return total

    def agreement(self, network: nn.Module, batch: Batch) -> Tensor:
        best = batch.best.roll(-1, 1)
        counts = []
        for step, outputs in enumerate(self._unrolled(network, batch, self.depths, 0.0)):
            counted = self._counted(batch, step)
            drafted = likeliest(self._whole_score, outputs[counted])
            counts.append(torch.stack([(drafted == best[counted]).sum(), counted.sum()]))
        return torch.stack(counts)

    def save(self, network: nn.Module, folder: Path) -> None:
        """In bfloat16, as EAGLE checkpoints are published."""
        assert isinstance(network, EagleHead)
        save_head(copy.deepcopy(network).to(torch.bfloat16), folder)

    def _unrolled(
        self, network: nn.Module, batch: Batch, steps: int, noise: float
    ) -> Iterator[Tensor]:
        with torch.no_grad():
            embeddings = self.target.embed(batch.tokens.roll(-1, 1)).float()
        features = batch.hidden.last.float()
        if noise:
            features = features + noise * (torch.rand_like(features) - 0.5)
        return unroll(network, embeddings, features, batch, steps)

    def _counted(self, batch: Batch, step: int) -> Tensor:
        """``[B, n]`` bool: rows that predict what follows in an answer, by a chain that begins in
        the document."""
        return batch.counted(2) & (batch.positions >= step)

    def _weights(self, batch: Batch, step: int) -> Tensor:
        """``[B, n]``, adding up to 1."""
        counted = self._counted(batch, step)
        if self.options.by_document:
            return batch.document_weights(counted)
        return counted / counted.sum().clamp(min=1)

    def _score(self, features: Tensor) -> Tensor:
        """Logits of the target's lm_head, over the draft vocabulary if there is one."""
        return self._logits(features, self._vocabulary)

    def _whole_score(self, features: Tensor) -> Tensor:
        return self._logits(features, None)

    def _logits(self, features: Tensor, vocabulary: Tensor | None) -> Tensor:
        dtype = dtype_within(features.device, self.target.dtype)
        key = vocabulary is None, dtype
        if key not in self._lm_heads:
            self._lm_heads[key] = lm_head_of(self.target, vocabulary, dtype)
        return self.target.logits(features.to(dtype), self._lm_heads[key])


def head_config(target: HFTarget, options: EagleTraining) -> LlamaConfig:
    """Sizes of a head for a target of any architecture.

    Raises:
        OptionError: attention heads that the hidden size cannot be divided among.
    """
    theirs, hidden = target.config, target.hidden_size
    heads = options.heads or theirs.num_attention_heads
    if hidden % (2 * heads):
        raise OptionError(
            f"heads={heads}: the hidden size {hidden} must be a multiple of twice as many; give "
            "another number"
        )
    shared = getattr(theirs, "num_key_value_heads", None) or heads
    sizes = options.intermediate_size or getattr(theirs, "intermediate_size", None)
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=sizes if isinstance(sizes, int) else 8 * hidden // 3,
        num_attention_heads=heads,
        num_key_value_heads=shared if heads % shared == 0 else heads,
        head_dim=hidden // heads,
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


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def make_recipe(options: EagleTraining, target: HFTarget, documents: Documents) -> Recipe:
    """The factory that the registry calls."""
    return EagleRecipe(options, target, documents)
