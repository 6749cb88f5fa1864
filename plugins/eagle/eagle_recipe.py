"""The recipes ``eagle1`` and ``unrolled``: heads that predict the target's last hidden state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from transformers import LlamaConfig

from specdec.decoding.interfaces import Needs
from specdec.models.hf_target import HFTarget
from specdec.training.batch import Batch
from specdec.training.distillation import cross_entropy
from specdec.training.documents import Documents
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.head_recipe import HeadRecipe, begun_from, head_config, quieten
from specdec_plugins.eagle.training import EagleTraining

_FEATURE_WEIGHT = {"eagle1": 1.0, "unrolled": 0.1}
_ENTROPY_WEIGHT = {"eagle1": 0.1, "unrolled": 1.0}


class EagleRecipe(HeadRecipe):
    """An EAGLE-1/2 head: distance of features, and cross-entropy through the target's lm_head.

    Source: EAGLE (arXiv 2401.15077), section 4.1, for ``eagle1``; HASS (arXiv 2408.15766) for
    several steps on this head.
    """

    strategy = "eagle2"
    needs = Needs(hidden=True)

    def __init__(self, options: EagleTraining, target: HFTarget, documents: Documents) -> None:
        super().__init__(options, target, documents, options.draft_vocab_size)
        self._noise = options.noise if options.recipe == "eagle1" else 0.0
        self.steps = 1 if options.recipe == "eagle1" else options.unrolled_steps
        self.decay = _given(options.step_decay, 0.9)
        self.by_document = bool(options.by_document)
        self._entropy = _given(options.cross_entropy_weight, _ENTROPY_WEIGHT[options.recipe])
        self._distance = _given(options.feature_weight, _FEATURE_WEIGHT[options.recipe])

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {
            **super().chosen,
            "feature_weight": self._distance,
            "cross_entropy_weight": self._entropy,
        }

    def make(self) -> EagleHead:
        if self.options.start is not None:
            return begun_from(self.options.start, self.target, EagleHead).float().train()
        config = head_config(self.target, self.options)
        assert isinstance(config, LlamaConfig)
        head = EagleHead(config, fc_bias=False)
        quieten(head.layers)
        return head.to(self.target.device).train()

    def save(self, network: nn.Module, folder: Path) -> None:
        """With the learned vocabulary, if that is not all, as ``vocabulary.json``: the drafter's
        option ``vocabulary`` takes the file."""
        super().save(network, folder)
        if self.vocabulary is not None:
            text = json.dumps(self.vocabulary.tolist())
            (folder / "vocabulary.json").write_text(text + "\n", encoding="utf-8")

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        features = self.features(network, batch)
        if self._noise:
            features = features + self._noise * (torch.rand_like(features) - 0.5)
        chosen = batch.counted(2).flatten().nonzero()[:, 0]
        wanted = batch.hidden.last.roll(-1, 1).flatten(0, 1)[chosen]
        steps = self.unrolled(network, features, batch, self.steps)
        outputs = torch.stack([each.flatten(0, 1)[chosen] for each in steps])
        weights = self.weights(batch, chosen)
        total = torch.zeros((), device=outputs.device)
        if self._entropy:
            score = self.target_score
            entropy = cross_entropy(score, outputs, score, wanted, weights)
            total = total + self._entropy * entropy
        if self._distance:
            apart = smooth_l1_loss(
                outputs.float(), wanted.float().expand_as(outputs), reduction="none"
            )
            total = total + self._distance * (weights * apart.mean(-1)).sum()
        return total

    def features(self, network: Any, batch: Batch) -> Tensor:
        return batch.hidden.last.float()

    def drafted(self, network: Any, outputs: Tensor) -> Tensor:
        return self.likeliest(outputs)


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
