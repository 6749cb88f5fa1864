"""How good a network is, in one number."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from specdec.training.evaluation import expected_accepted


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_the_score_is_the_mean_length_of_an_accepted_chain(
    depths: list[float],
) -> None:
    mean = 0.0
    for accepted in itertools.product([True, False], repeat=len(depths)):
        chance = math.prod(d if yes else 1 - d for d, yes in zip(depths, accepted, strict=True))
        mean += chance * len(list(itertools.takewhile(bool, accepted)))
    assert math.isclose(expected_accepted(depths), mean, abs_tol=1e-9)
