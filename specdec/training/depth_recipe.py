"""Recipes of heads that draft one depth each: their loss and agreement, depth by depth."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from specdec.decoding.interfaces import Needs
from specdec.models.heads.depth_heads import DepthHeads, HeadSizes
from specdec.models.heads.kind import HeadsKind
from specdec.models.hf_target import HFTarget
from specdec.training.batch import Batch
from specdec.training.depth_options import DepthTraining
from specdec.training.distillation import TargetScores, cross_entropy, likeliest
from specdec.training.documents import Documents
from specdec.training.recipe import Recipe


class DepthRecipe(Recipe):
    """K heads, the d-th of which drafts at depth d + 1 from what is known when the root is.

    The loss of each depth is the cross-entropy against the target's distribution at the same place,
    its lm_head on the kept hidden states, so a place counts by how likely the target found each
    token and not by the one that it drew. Draft tokens are those of the text.

    New heads have the target's lm_head as their projections. Saved is what the kind of heads saves,
    in bfloat16.

    Args:
        documents: of which the tokens that are drafted are taken; not looked at where heads are
            gone on from.

    Raises:
        OptionError: options of new heads beside heads to go on from.

    Attributes:
        kind: of heads.
        sizes: of the heads.
        heads: K.
        decay: the weight of each further depth.
        vocabulary: ``[C]`` int64, ascending, the tokens that are drafted; None for all. Only places
            whose likeliest token is among them are learned: elsewhere the target's distribution
            over them says little.

    Source: the loss by depth is that of Medusa (arXiv 2401.10774), section 2.2.1, with the target's
    distribution in place of the text's token, as in Hydra (arXiv 2402.05109), section 4.
    """

    needs = Needs(hidden=True)
    kind: ClassVar[HeadsKind[Any]]

    def __init__(self, options: DepthTraining, target: HFTarget, documents: Documents) -> None:
        self.options, self.target, self.decay = options, target, options.step_decay
        self._target_logits = TargetScores(target)
        self._begun: DepthHeads | None = None
        self.vocabulary: Tensor | None
        self.sizes: HeadSizes
        if options.start is not None:
            options.check_start()
            self._begun = self.kind.load(options.start, target)
            self.vocabulary, self.sizes = self._begun.vocabulary, self._begun.sizes
        else:
            self.vocabulary = options.drafted(target, documents)
            drafted = target.vocab_size if self.vocabulary is None else len(self.vocabulary)
            self.sizes = self.new_sizes(
                hidden_size=target.hidden_size,
                vocab_size=target.vocab_size,
                heads=options.heads,
                layers=options.layers,
                projection=options.projection,
                draft_vocab_size=drafted,
            )
        self.heads = self.sizes.heads

    @property
    def depths(self) -> int:  # type: ignore[override]
        return self.heads

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {"draft_vocab_size": self.sizes.draft_vocab_size}

    @abstractmethod
    def new_sizes(self, **common: Any) -> HeadSizes:
        """Those of new heads, given the fields of :class:`HeadSizes`."""

    @abstractmethod
    def begin(self, network: Any) -> None:
        """Give new heads, but for their projections, the weights that they begin with, in place."""

    @torch.no_grad()
    def make(self) -> nn.Module:
        if self._begun is not None:
            return copy.deepcopy(self._begun).float().train()
        made: DepthHeads = self.kind.network(self.sizes, self.vocabulary)
        self.begin(made)
        lm_head: Any = self.target.model.get_output_embeddings()
        rows = lm_head.weight if self.vocabulary is None else lm_head.weight[self.vocabulary]
        for name, parameter in made.projections.named_parameters():
            parameter.copy_(rows if name.endswith("weight") else torch.zeros(()))
        return made.to(self.target.device).train()

    def save(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, DepthHeads)
        self.kind.save(copy.deepcopy(network).to(torch.bfloat16), folder)

    @abstractmethod
    def outputs(self, network: Any, batch: Batch) -> Tensor:
        """What each head's projection reads: ``[K, B, n, H]``.

        Entry d at place s is drafted from the hidden state at s - d - 1 and the tokens s - d to s,
        the first of them the root, and predicts token s + 1; anything where the document has no
        such place.
        """

    def score(self, network: Any, outputs: Tensor, depth: int) -> Tensor:
        """Draft logits ``[M, C]`` of one head's ``outputs [M, H]``."""
        if self.sizes.projection == "target":
            return self.target_score(outputs)
        own = network.projections
        logits: Tensor = own[min(depth, len(own) - 1)](outputs)
        return logits

    def counted(self, batch: Batch, depth: int) -> Tensor:
        """``[B, n]`` bool: places before a token of an answer that the head of ``depth`` can draft
        for."""
        return batch.counted(1) & (batch.positions > depth)

    def learned(self, batch: Batch, depth: int) -> Tensor:
        """``[B, n]`` bool: those of them that the loss is of."""
        counted = self.counted(batch, depth)
        if self.vocabulary is None:
            return counted
        return counted & torch.isin(batch.best, self.vocabulary)

    def loss(self, network: Any, batch: Batch) -> Tensor:
        chosen = self.learned(batch, 0).flatten().nonzero()[:, 0]
        outputs = self.outputs(network, batch).flatten(1, 2)[:, chosen]
        weights = []
        for depth in range(self.heads):
            counted = self.learned(batch, depth)
            share = self.decay**depth / counted.sum().clamp(min=1)
            weights.append(share * counted.flatten()[chosen])

        def score(flat: Tensor) -> Tensor:
            by_depth = flat.view(self.heads, -1, flat.shape[-1])
            scored = [self.score(network, each, depth) for depth, each in enumerate(by_depth)]
            return torch.cat(scored)

        hidden = batch.hidden.last.flatten(0, 1)[chosen]
        scoring = list(network.projections.parameters())
        return cross_entropy(
            score, outputs, self.target_score, hidden, torch.stack(weights), scoring
        )

    def agreement(self, network: nn.Module, batch: Batch) -> Tensor:
        outputs, counts = self.outputs(network, batch), []
        for depth in range(self.heads):
            counted = self.counted(batch, depth)
            columns = likeliest(partial(self.score, network, depth=depth), outputs[depth][counted])
            drafted = columns if self.vocabulary is None else self.vocabulary[columns]
            counts.append(torch.stack([(drafted == batch.best[counted]).sum(), counted.sum()]))
        return torch.stack(counts)

    def target_score(self, hidden: Tensor) -> Tensor:
        """The target's logits ``[..., C]`` of its last hidden states."""
        return self._target_logits(hidden, self.vocabulary)
