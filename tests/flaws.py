"""Wrong masks, positions and cache moves, planted in the forwards of decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from specdec.kv_cache.kv_cache import KVCache
from specdec.models.attention_mask import MaskForm
from specdec.models.hf_target import HFTarget

Flaw = Callable[[], Any]


def _visible(change: Callable[[KVCache, Tensor], Tensor]) -> Flaw:
    """What may be attended to, ``[B, n, view]`` bool, is what ``change`` makes of it."""
    true = KVCache.visible

    def visible(self: KVCache, tree_mask: Tensor) -> Tensor:
        return change(self, true(self, tree_mask).clone())

    return lambda: mock.patch.object(KVCache, "visible", visible)


def _sees_a_sibling(cache: KVCache, seen: Tensor) -> Tensor:
    if seen.shape[1] > 2:
        rows = torch.arange(len(seen))
        seen[rows, 2, cache.lengths + 1] = True
    return seen


def _misses_a_parent(cache: KVCache, seen: Tensor) -> Tensor:
    if seen.shape[1] > 5:
        rows = torch.arange(len(seen))
        seen[rows, 5, cache.lengths + 2] = False
    return seen


def _misses_one_committed_token(cache: KVCache, seen: Tensor) -> Tensor:
    if seen.shape[1] > 2:
        seen[0, :, cache.lengths[0] - 2] = False
    return seen


def _sees_an_unused_slot(cache: KVCache, seen: Tensor) -> Tensor:
    rows = torch.arange(len(seen))
    if seen.shape[1] == 1:
        seen[rows, 0, cache.lengths + 1] = True
    return seen


def _first_rows_length(cache: KVCache, seen: Tensor) -> Tensor:
    return seen if seen.shape[1] == 1 else seen[:1].expand_as(seen)


@contextmanager
def _positions(change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    true = HFTarget.forward

    def forward(self: HFTarget, tokens: Tensor, positions: Tensor, *args: Any) -> Any:
        return true(self, tokens, change(positions), *args)

    with mock.patch.object(HFTarget, "forward", forward):
        yield


def _by_order(positions: Tensor) -> Tensor:
    """As a chain has them."""
    return positions[:, :1] + torch.arange(positions.shape[1])


def _deep_ones_shifted(positions: Tensor) -> Tensor:
    return positions + (positions - positions[:, :1] > 2)


def _moved_wrongly() -> Any:
    true = KVCache.keep

    def keep(self: KVCache, scratch: Tensor, counts: Tensor, longest: int) -> None:
        moved = scratch.clone()
        moved[:, -1] -= 1
        true(self, moved, counts, longest)

    return mock.patch.object(KVCache, "keep", keep)


def _window(change: Callable[[int], int | None]) -> Flaw:
    true = MaskForm.build

    def build(self: MaskForm, *args: Any) -> Any:
        windows = {k: w if w is None else change(w) for k, w in self.windows.items()}
        return true(MaskForm(windows, self.additive), *args)

    return lambda: mock.patch.object(MaskForm, "build", build)


FLAWS: dict[str, Flaw] = {
    "a node sees a sibling": _visible(_sees_a_sibling),
    "a node misses its parent": _visible(_misses_a_parent),
    "nodes miss one committed token": _visible(_misses_one_committed_token),
    "one token sees an unused slot": _visible(_sees_an_unused_slot),
    "every row has the first row's length": _visible(_first_rows_length),
    "positions by order": lambda: _positions(_by_order),
    "positions of deep nodes one too far": lambda: _positions(_deep_ones_shifted),
    "a wrong slot is kept": _moved_wrongly,
}
WINDOW_FLAWS: dict[str, Flaw] = {
    "windows one too wide": _window(lambda w: w + 1),
    "windows one too narrow": _window(lambda w: w - 1),
    "windows ignored": _window(lambda w: None),
}
