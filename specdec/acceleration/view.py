"""The view of a key-value cache that compiled code reads in place of the cache itself."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from specdec.kv_cache.cache_layers import Group, layers_of
from specdec.kv_cache.kv_cache import KVCache


class CacheView(Cache):  # type: ignore[misc]
    """What one forward sees of a cache: its tensors, the slots written and how many are visible.

    Compiled code reads the tensors through it, so that it can be run again on another cache of the
    same :attr:`KVCache.geometry`.

    Args:
        cache: its layout, capacity and view are those of every later cache.
    """

    def __init__(self, cache: KVCache) -> None:
        self.capacity, self.view = cache.capacity, cache.view
        self.write_slots = cache.write_slots
        self._groups = {
            shape: Group(group.keys, group.values) for shape, group in cache.groups.items()
        }
        super().__init__(layers=layers_of(self, cache.layout, self._groups))

    def follow(self, cache: KVCache, *, fixed: bool = False) -> None:
        """See ``cache``, whose geometry is that of the first one.

        Args:
            fixed: tell the compiler that the stores stay where they are, as CUDA graphs need it.
        """
        self.write_slots = cache.write_slots
        for shape, group in cache.groups.items():
            if fixed:
                for store in (group.keys, group.values):
                    torch._dynamo.mark_static_address(store, guard=False)
            self._groups[shape].keys, self._groups[shape].values = group.keys, group.values

    def slots_on(self, device: torch.device) -> Tensor:
        """The slots written; compiled networks lie on one device."""
        return self.write_slots

    def release(self) -> None:
        """Let go of the cache's memory until the next :meth:`follow`."""
        for group in self._groups.values():
            # A slice would be a view, which keeps the whole memory.
            group.keys, group.values = group.keys.new_empty(0), group.values.new_empty(0)
