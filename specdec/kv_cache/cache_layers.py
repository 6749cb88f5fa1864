"""Layers of the key-value cache, on memory that layers of one shape share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, DynamicCache


@dataclass(frozen=True)
class LayerShape:
    """What one layer stores for one token.

    Attributes:
        heads: key-value heads.
        key_dim, value_dim: channels of a key and of a value.
        device: where the layer runs; None for the device of the cache.
    """

    heads: int
    key_dim: int
    value_dim: int
    device: torch.device | None = None


def probe_layout(cache: DynamicCache) -> tuple[LayerShape, ...]:
    """The layout of a model, read from a cache that one forward has filled."""
    return tuple(
        LayerShape(
            layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3], layer.keys.device
        )
        for layer in cache.layers
    )


@dataclass
class Group:
    """The layers of one shape: ``keys`` is ``[layers, rows, capacity, heads, key_dim]``."""

    keys: Tensor
    values: Tensor

    def flat(self) -> tuple[Tensor, Tensor]:
        """Both with rows and slots in one dimension."""
        return self.keys.flatten(1, 2), self.values.flatten(1, 2)


class Reserved(Protocol):
    """What the layers of a cache need for the forward that comes.

    Attributes:
        view: slots a row that it attends over.
        capacity: slots a row.
    """

    view: int
    capacity: int

    def slots_on(self, device: torch.device) -> Tensor:
        """Where its tokens are written, flat, on a layer's device."""


class Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's window on its group."""

    is_sliding = False

    def __init__(self, owner: Reserved, group: Group, index: int) -> None:
        super().__init__()
        # Weakly: memory in a cycle is freed when Python's collector runs, and a GPU that is full
        # does not make it run.
        self._owner, self.group, self.index = ref(owner), group, index
        self.is_initialized = True

    @property
    def owner(self) -> Reserved:
        """The cache that it is a layer of."""
        owner = self._owner()
        assert owner is not None, "a layer outlived its cache"
        return owner

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the memory was laid out before the first forward."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write into the reserved slots; return what may be attended to.

        Args:
            key_states: ``[B, heads, n, key_dim]``; ``value_states`` likewise.

        Returns:
            ``[B, heads, view, dim]`` each.
        """
        slots = self.owner.slots_on(self.group.keys.device)
        return (
            self._write(self.group.keys[self.index], slots, key_states),
            self._write(self.group.values[self.index], slots, value_states),
        )

    def _write(self, store: Tensor, slots: Tensor, states: Tensor) -> Tensor:
        rows = states.transpose(1, 2).flatten(0, 1).to(store.dtype)  # autocast gives another
        store.flatten(0, 1).index_copy_(0, slots, rows)
        return store[:, : self.owner.view].transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Slots in view, and the first of them."""
        return self.owner.view, 0

    def get_seq_length(self) -> int:
        """0: positions are always given, never inferred from the cache."""
        return 0

    def get_max_length(self) -> int:
        """Slots a row."""
        return self.owner.capacity


def layers_of(
    owner: Reserved, layout: Sequence[LayerShape], groups: dict[LayerShape, Group]
) -> list[Layer]:
    """One layer for each entry of ``layout``, on its shape's group."""
    indices = [list(layout[:i]).count(shape) for i, shape in enumerate(layout)]
    return [Layer(owner, groups[s], i) for s, i in zip(layout, indices, strict=True)]
