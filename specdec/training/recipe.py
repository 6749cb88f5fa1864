"""The interface of recipes: what a trainer makes of a target, and how that learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from specdec.decoding.interfaces import Needs
from specdec.training.batch import Batch


class Recipe(ABC):
    """A network for one target, its loss, and the form in which the engine takes it.

    A trainer (``Trainer``, from the hook ``specdec_trainers``) makes one by ``factory(options,
    target, documents)``. A head on one position, several independent heads and a whole draft model
    are all recipes: the loop knows only the members below.

    Attributes:
        needs: the hidden states of the target that batches are to have besides the last.
        strategy: the strategy that tau is measured with; its drafter takes what :meth:`save` wrote.
        chosen: what became of options that were left out, by name, for the card.
        depths: how many figures :meth:`agreement` gives.
    """

    strategy: ClassVar[str]
    needs: Needs = Needs(hidden=True)
    depths: int = 1

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {}

    @abstractmethod
    def make(self) -> nn.Module:
        """The network before training, float32, on the target's device; the same in every process.

        Random weights are drawn from torch's generator, which the caller has seeded. It is also
        called before answers and hidden states are made, to see that there is such a network.

        Raises:
            SpecdecError: options of which no network can be made for the target, or none that
                :meth:`save` can write.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss on a batch, a number; no document changes what another adds to it."""

    @abstractmethod
    def agreement(self, network: nn.Module, batch: Batch) -> Tensor:
        """How often the likeliest draft token is the target's, by depth.

        Returns:
            ``[depths, 2]``: tokens at which they agree, and all that were counted.
        """

    @abstractmethod
    def save(self, network: nn.Module, folder: Path) -> None:
        """Write the checkpoint into an empty folder, as :attr:`strategy` takes it."""
