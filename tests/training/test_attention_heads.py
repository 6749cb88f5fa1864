"""A new layer has as many attention heads as its channels can be divided among."""

from __future__ import annotations

from typing import Any

import pytest

from specdec import Engine, SpecdecError
from specdec.training.attention_heads import attention_heads
from specdec_plugins.sampling.draft_training import DraftRecipe, DraftTraining


@pytest.mark.parametrize(
    ("size", "most", "heads"),
    [(576, 9, 9), (2880, 64, 60), (200, 3, 2), (22, 4, 1)],
    ids=str,
)
def test_without_a_number_it_is_the_largest_that_fits(size: int, most: int, heads: int) -> None:
    assert attention_heads(size, None, most, "the size") == heads


def test_a_number_that_does_not_fit_is_refused_and_not_changed() -> None:
    assert attention_heads(2880, 45, 64, "the size") == 45
    with pytest.raises(SpecdecError, match="heads=64: the size 2880 must be a multiple of twice"):
        attention_heads(2880, 64, 64, "the size 2880")


def test_a_draft_model_of_any_even_width_can_be_made(decoding: Engine) -> None:
    options = DraftTraining(hidden_size=200)
    made: Any = DraftRecipe(options, decoding.target, None)  # type: ignore[arg-type]
    assert made.make().config.num_attention_heads == 2
