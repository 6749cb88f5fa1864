"""Key-value cache with per-row lengths, preallocated: rolling back is not advancing.

The layers implement transformers' cache layer interface, so any modelling file writes into it
unchanged. Keys and values of all layers of one shape live in one tensor, so that committing a
step is a handful of operators, not a handful per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache

from specdec.kv_cache.cache_layers import Group, LayerShape, layers_of

BUCKET = 64
COARSE_BUCKET = 256


def bucketed(slots: int) -> int:
    """``slots`` rounded up, so that attention sees few different shapes."""
    return -(-slots // BUCKET) * BUCKET


def coarsely_bucketed(slots: int) -> int:
    """``slots`` rounded up to a power of two, so that few shapes have to be compiled."""
    return max(COARSE_BUCKET, 1 << (slots - 1).bit_length())


class KVCache(Cache):  # type: ignore[misc]
    """Keys and values of every committed token but the last, one length per row.

    Slot i of a row holds the token at position i. Whatever lies past a row's length is scratch:
    drafts are written there, ``keep`` moves those that were accepted into place.

    Args:
        layout: the shape of each layer.
        rows: batch size B.
        capacity: slots a row.
        device: where lengths lie, and the layers that do not say otherwise.
        bucket: rounds sizes up, so that attention sees few different shapes; monotone.
    """

    def __init__(
        self,
        layout: Sequence[LayerShape],
        rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        bucket: Callable[[int], int] = bucketed,
    ) -> None:
        self.bucket = bucket
        self.capacity = bucket(capacity)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.longest = 0
        self.view = 0
        self._slots = {self.lengths.device: self.lengths}
        self._scratch: tuple[Tensor, Tensor] | None = None
        self._starts = torch.arange(rows, device=device)[:, None] * self.capacity
        self._groups: dict[LayerShape, Group] = {}
        for shape in dict.fromkeys(layout):
            size = (layout.count(shape), rows, self.capacity, shape.heads)
            place = device if shape.device is None else shape.device
            self._groups[shape] = Group(
                keys=torch.zeros(*size, shape.key_dim, dtype=dtype, device=place),
                values=torch.zeros(*size, shape.value_dim, dtype=dtype, device=place),
            )
        super().__init__(layers=layers_of(self, layout, self._groups))

    @property
    def groups(self) -> Mapping[LayerShape, Group]:
        """Keys and values of all layers of one shape, by that shape."""
        return self._groups

    @property
    def layout(self) -> tuple[LayerShape, ...]:
        """The shape of each layer."""
        shapes = {id(group): shape for shape, group in self._groups.items()}
        return tuple(shapes[id(layer.group)] for layer in self.layers)

    @property
    def geometry(self) -> tuple[Any, ...]:
        """Every size that a forward on the reserved slots depends on."""
        dtypes = tuple(group.keys.dtype for group in self._groups.values())
        return self.layout, len(self.lengths), self.capacity, self.view, dtypes

    def reserve(self, n: int, after: int = 0, *, exactly: bool = False) -> None:
        """The next forward writes n tokens a row, ``after`` slots past the row's length.

        Args:
            exactly: the view ends with them, for a forward without a mask; else it is rounded up.
        """
        if n == 0:
            raise ValueError("a forward needs at least one token")
        self.grow(self.longest + after + n)
        flat, _ = self._scratch_slots(after + n)
        self._slots = {flat.device: flat[:, after : after + n].flatten()}
        end = self.longest + after + n
        self.view = end if exactly else self._rounded(end)

    @property
    def write_slots(self) -> Tensor:
        """Where the tokens of the reserved forward are written, flat."""
        return self._slots[self.lengths.device]

    def slots_on(self, device: torch.device) -> Tensor:
        """The same on a layer's device, copied there once for each forward."""
        if device not in self._slots:
            self._slots[device] = self.write_slots.to(device)
        return self._slots[device]

    @property
    def stores(self) -> tuple[Tensor, ...]:
        """The memory that keys and values lie in."""
        groups = self._groups.values()
        return tuple(store for group in groups for store in (group.keys, group.values))

    def _rounded(self, slots: int) -> int:
        return min(self.bucket(slots), self.capacity)

    def reserve_prefix(self, n: int) -> None:
        """The next forward writes the first n slots and attends to nothing else."""
        self.grow(n)
        fresh = torch.arange(n, device=self.lengths.device)
        self._slots = {fresh.device: (self._starts + fresh).flatten()}
        self.view = n

    def visible(self, tree_mask: Tensor) -> Tensor:
        """Which slots the reserved tokens may attend to.

        Args:
            tree_mask: ``[B, n, F]`` bool, visibility among the F slots after each row's length.

        Returns:
            ``[B, n, view]`` bool: the row's committed slots, and of the F only those marked.
        """
        n, scratch = tree_mask.shape[1], tree_mask.shape[2]
        framed = pad(pad(tree_mask, (1, 0), value=True), (0, 1))
        relative = torch.arange(1, self.view + 1, device=tree_mask.device) - self.lengths[:, None]
        column = relative.clamp_(0, scratch + 1)[:, None, :].expand(-1, n, -1)
        return framed.gather(2, column)

    def committed(self) -> Tensor:
        """``[B, S]`` bool: which slots hold committed tokens; S is at most any later view."""
        slots = self._rounded(self.longest)
        return torch.arange(slots, device=self.lengths.device) < self.lengths[:, None]

    def slot_positions(self, scratch: Tensor) -> Tensor:
        """The positions of the tokens in all visible slots, for windows: ``[B, view]`` int64.

        Args:
            scratch: ``[B, F]`` int64, the positions of the first F slots past each row's length.
        """
        slots = torch.arange(self.view, device=scratch.device).expand(len(scratch), -1)
        relative = slots - self.lengths[:, None]
        column = relative.clamp(0, scratch.shape[1] - 1)
        return torch.where(relative < 0, slots, scratch.gather(1, column))

    def inherit(self, visible: Tensor, rows: Tensor, after: int) -> Tensor:
        """What drafted tokens may attend to: what their parents may, and themselves.

        Args:
            visible: ``[B, m, S]`` bool, what the parents may attend to, S at most the view.
            rows: ``[B * n]`` int64, the parents among the ``B * m`` rows of ``visible``.
            after: the slot past the row's length that the first of the n tokens is written to.

        Returns:
            ``[B, n, view]`` bool.
        """
        batch, n = len(visible), len(rows) // len(visible)
        own = visible.flatten(0, 1).index_select(0, rows).view(batch, n, -1)
        if own.shape[2] < self.view:
            own = pad(own, (0, self.view - own.shape[2]))
        _, slots = self._scratch_slots(after + n)
        return own.scatter_(2, slots[:, after : after + n, None], True)

    def keep(self, scratch: Tensor, counts: Tensor, longest: int) -> None:
        """Commit scratch slots: move them behind the row's length and advance it.

        Args:
            scratch: ``[B, m]`` int64, the slots past the row's length to keep, in order.
            counts: ``[B]`` int64, how many of them each row keeps; the rest are ignored.
            longest: the longest row's length afterwards, known to the host.
        """
        ahead, _ = self._scratch_slots(scratch.shape[1])
        source = (self.lengths[:, None] + scratch).clamp_(max=self.capacity - 1).add_(self._starts)
        target, source = ahead[:, : scratch.shape[1]].flatten(), source.flatten()
        for group in self._groups.values():
            there, here = (slots.to(group.keys.device) for slots in (target, source))
            for store in group.flat():
                store.index_copy_(1, there, store.index_select(1, here))
        self.advance(counts, longest)

    def _scratch_slots(self, width: int) -> tuple[Tensor, Tensor]:
        """The slots past each row's length, never another row's: flat indices and places in the
        row, ``[B, at least width]`` both. They stay the same until a step is committed."""
        if self._scratch is None or self._scratch[0].shape[1] < width:
            order = torch.arange(bucketed(width), device=self.lengths.device)
            slots = (self.lengths[:, None] + order).clamp_(max=self.capacity - 1)
            self._scratch = slots + self._starts, slots
        return self._scratch

    def advance(self, counts: Tensor, longest: int) -> None:
        """Commit the next ``counts [B]`` slots as they lie."""
        self.truncate(self.lengths + counts, longest)

    def truncate(self, lengths: Tensor, longest: int) -> None:
        """Forget everything past ``lengths [B]``."""
        self.lengths, self.longest = lengths, longest
        self._scratch = None

    def keep_rows(self, rows: Tensor, longest: int) -> None:
        """Keep only ``rows [m]`` int64 of the batch; ``longest`` as in :meth:`keep`."""
        for group in self._groups.values():
            own = rows.to(group.keys.device)
            group.keys = group.keys.index_select(1, own)
            group.values = group.values.index_select(1, own)
        self._starts = self._starts[: len(rows)]
        self.truncate(self.lengths.index_select(0, rows), longest)

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` slots a row, keeping what is stored."""
        if capacity <= self.capacity:
            return
        old, self.capacity = self.capacity, self.bucket(max(capacity, 3 * self.capacity // 2))
        self._starts = self._starts // old * self.capacity
        self._scratch = None
        for group in self._groups.values():
            for name in ("keys", "values"):
                store = getattr(group, name)
                wider = store.new_zeros(*store.shape[:2], self.capacity, *store.shape[3:])
                wider[:, :, :old] = store
                setattr(group, name, wider)
