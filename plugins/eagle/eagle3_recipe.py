"""The recipe ``eagle3``: a head on hidden states of several layers, with an lm_head of its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from specdec.decoding.interfaces import Needs
from specdec.errors import CheckpointError, OptionError
from specdec.models.hf_target import HFTarget
from specdec.training.batch import Batch
from specdec.training.distillation import cross_entropy, likeliest
from specdec.training.documents import Documents
from specdec_plugins.eagle.eagle3_head import Eagle3Head, Eagle3Wiring
from specdec_plugins.eagle.head_recipe import HeadRecipe, begun_from, head_config, quieten
from specdec_plugins.eagle.saving import check_can_be_saved
from specdec_plugins.eagle.training import EagleTraining

_VOCABULARY = 8192


class Eagle3Recipe(HeadRecipe):
    """An EAGLE-3 head: cross-entropy against the target's distribution over the draft vocabulary.

    The embeddings are the target's, are not trained and are not saved; the lm_head begins as rows
    of the target's.

    Source: EAGLE-3 (arXiv 2503.01840), section 3; the weights of its steps are those of the
    authors' code.
    """

    strategy = "eagle3"

    def __init__(self, options: EagleTraining, target: HFTarget, documents: Documents) -> None:
        size = min(options.draft_vocab_size or _VOCABULARY, target.vocab_size)
        super().__init__(options, target, documents, None if options.start else size)
        self.decay = 0.8 if options.step_decay is None else options.step_decay
        self.by_document = options.by_document is not False
        self._start: Eagle3Head | None = None
        if options.start is not None:
            self._start = begun_from(options.start, target, Eagle3Head)
            self.vocabulary = self._start.vocabulary.to(target.device)  # and no other
            aux_layers = self._start.aux_layers
        else:
            aux_layers = options.aux_layers or usual_layers(target.layers)
        if wrong := [layer for layer in aux_layers if not 0 <= layer <= target.layers]:
            raise OptionError(
                f"aux_layers: {wrong[0]} is none of the hidden states 0 to {target.layers}"
            )
        self.needs = Needs(hidden=True, aux_layers=tuple(aux_layers))

    def make(self) -> Eagle3Head:
        made = self._new() if self._start is None else copy.deepcopy(self._start).float()
        try:
            check_can_be_saved(made, self.target.layers)
        except CheckpointError as error:
            raise CheckpointError(f"what is trained could not be saved: {error}") from error
        return made.train()

    def _new(self) -> Eagle3Head:
        options, target, vocabulary = self.options, self.target, self._vocabulary
        wiring = Eagle3Wiring(
            aux_layers=self.needs.aux_layers,
            target_hidden_size=target.aux_hidden_size,
            draft_vocab_size=len(vocabulary),
            fc_norm=options.fc_norm,
            norm_output=options.norm_output,
        )
        head = Eagle3Head(head_config(target, options), wiring)
        quieten(head.decoder.layers)
        head.vocabulary = vocabulary
        rows = target.model.get_output_embeddings().weight.detach()[vocabulary]
        head.lm_head.weight.data.copy_(rows)
        return head.to(target.device)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(network, Eagle3Head)
        chosen = batch.counted(2).flatten().nonzero()[:, 0]
        wanted = batch.hidden.last.roll(-1, 1).flatten(0, 1)[chosen]
        steps = self.unrolled(network, self.features(network, batch), batch, self.steps)
        outputs = torch.stack([each.flatten(0, 1)[chosen] for each in steps])
        normed = network.normed(outputs)
        weights = self.weights(batch, chosen)
        parameters = list(network.lm_head.parameters())
        return cross_entropy(
            network.lm_head, normed, self.target_score, wanted, weights, parameters
        )

    def features(self, network: Any, batch: Batch) -> Tensor:
        states = network.features(batch.hidden)
        fused: Tensor = network.fuse(states.float())
        return fused

    def drafted(self, network: Any, outputs: Tensor) -> Tensor:
        return self._vocabulary[likeliest(network.logits, outputs)]

    @property
    def _vocabulary(self) -> Tensor:
        assert self.vocabulary is not None
        return self.vocabulary


def usual_layers(layers: int) -> tuple[int, ...]:
    """The hidden states 2, n // 2 and n - 3 of a target of n layers; fewer where they coincide."""
    return tuple(sorted({min(2, layers), layers // 2, max(1, layers - 3)}))
