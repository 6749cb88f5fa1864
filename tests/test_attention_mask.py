"""Attention masks: who sees whom in a window, and what making them takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from specdec.models.attention_mask import MaskForm

PLACES = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@given(queries=PLACES, keys=PLACES, window=st.integers(1, 50))
def test_a_window_hides_what_is_that_far_back_or_farther(
    queries: list[int], keys: list[int], window: int
) -> None:
    visible = torch.rand(1, len(queries), len(keys)) < 0.8
    places = torch.tensor([queries]), torch.tensor([keys])
    mask = MaskForm({"": window}, additive=False).build(visible, *places, torch.float32)
    assert isinstance(mask, Tensor)
    for row, query in enumerate(queries):
        for column, key in enumerate(keys):
            seen = bool(visible[0, row, column]) and query - key < window
            assert bool(mask[0, 0, row, column]) is seen


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_in_a_whole_row_each_token_sees_those_before_it(additive: bool, window: int | None) -> None:
    form, positions = MaskForm({"": window}, additive), torch.arange(9).expand(2, -1)
    visible = torch.ones(2, 9, 9, dtype=torch.bool).tril()
    due = form.build(visible, positions, positions, torch.float64)
    found = form.causal(positions, torch.float64)
    if found is None:
        assert window is None and not additive
    else:
        assert isinstance(due, Tensor) and isinstance(found, Tensor) and torch.equal(found, due)


def test_no_number_is_made_for_every_pair_of_query_and_key() -> None:
    made: list[tuple[int, torch.dtype]] = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            made.append((result.numel(), result.dtype))
            return result

    queries, keys = torch.arange(20).expand(2, -1), torch.arange(30).expand(2, -1)
    visible = torch.ones(2, 20, 30, dtype=torch.bool)
    with Watching():
        MaskForm({"": 7}, additive=False).build(visible, queries, keys, torch.float32)
    pairs = {dtype for size, dtype in made if size == visible.numel()}
    assert pairs == {torch.bool}
