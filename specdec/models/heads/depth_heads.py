"""Networks of heads that draft one depth each: their sizes, and what all kinds of them have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor, nn

from specdec.errors import CheckpointError
from specdec.models.hf_target import HFTarget

Projection = Literal["own", "shared", "target"]
Sizes = TypeVar("Sizes", bound="HeadSizes")


@dataclass(frozen=True)
class HeadSizes:
    """What a set of heads is made of; a kind of heads adds what is its own.

    Attributes:
        hidden_size, vocab_size: of the target.
        heads: how many, K; the one of index i drafts at depth i + 1.
        layers: residual blocks of each head.
        projection: what gives logits: ``own``, a projection for each head; ``shared``, one for all
            of them; ``target``, the target's lm_head, of which nothing is kept with the heads.
        draft_vocab_size: tokens C that are drafted; ``vocab_size`` for all.
        missing: what only a target says of them, in words; empty where the network can be made.
    """

    hidden_size: int
    vocab_size: int
    heads: int
    layers: int
    projection: Projection
    draft_vocab_size: int
    missing: str = ""

    @property
    def projections(self) -> int:
        """How many projections the heads bring."""
        return {"own": self.heads, "shared": 1, "target": 0}[self.projection]

    def for_target(self: Sizes, target: HFTarget) -> Sizes:
        """The same, with what only the target says.

        Raises:
            CheckpointError: heads of another target: of another hidden size or vocabulary.
        """
        for name in ("hidden_size", "vocab_size"):
            given, wanted = getattr(self, name), getattr(target, name)
            if given != wanted:
                raise CheckpointError(
                    f"they are for a target of {name} {given}, the target model has {wanted}: "
                    "heads work only with the model that they were trained for"
                )
        return self


class DepthHeads(nn.Module, ABC):
    """K heads, of which the one of index i drafts at depth i + 1.

    Attributes:
        sizes: what it is made of.
        vocabulary: ``[C]`` int64, ascending, the tokens that are drafted; None for all.
    """

    def __init__(self, sizes: HeadSizes, vocabulary: Tensor | None = None) -> None:
        super().__init__()
        self.sizes, self.vocabulary = sizes, vocabulary

    @property
    @abstractmethod
    def projections(self) -> nn.ModuleList:
        """What gives logits ``[..., C]`` of a head's output: one for each head, one for all, or
        none, as :attr:`sizes` says."""
