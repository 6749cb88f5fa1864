"""What a rope in a head's config may have, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from specdec.errors import CheckpointError
from specdec_plugins.eagle.rope import rope_parameters


@pytest.mark.parametrize(
    ("rope", "says"),
    [
        ({"type": "linear", "factor": 2, "weird": 3}, "rope_scaling.weird=3, which specdec does"),
        ({"type": "linear", "factor": 2, "beta_fast": 3}, "rope_scaling.beta_fast=3, which"),
        ({"type": "mrope", "factor": 2}, "rope_scaling.factor=2, which specdec does not know"),
        ({"factor": 2}, "rope_scaling.factor=2, which specdec does not know"),
        ({"type": "yarn", "factor": 2, "truncate": 0}, "truncate=0: it must be true or false"),
        ({"type": "yarn", "rope_type": "linear", "factor": 2}, "rope_scaling.type=yarn"),
        ({"type": ["yarn"]}, "rope of the type ['yarn'] is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ({"rope_theta": 5e5}, "rope_theta=10000.0, rope_scaling.rope_theta=500000.0"),
    ],
    ids=lambda v: str(v)[:50],
)
def test_what_a_rope_does_not_have_is_refused_by_name(rope: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError) as error:
        rope_parameters({"rope_scaling": rope, "rope_theta": 10000.0})
    assert says in str(error.value)


def test_what_a_kind_of_rope_does_not_read_may_stand_there() -> None:
    trained = {"original_max_position_embeddings": 4096}
    linear = {"type": "linear", "factor": 2.0}
    assert rope_parameters({"rope_scaling": linear | trained}) == rope_parameters(
        {"rope_scaling": linear}
    )
    default = {"rope_type": "default", "factor": 1.0} | trained
    assert rope_parameters({"rope_scaling": default}) == rope_parameters({})


def test_what_a_rope_of_yarn_may_have_is_kept() -> None:
    more = {"beta_fast": 1.0, "mscale_all_dim": 1.0, "truncate": False}
    rope = {"type": "yarn", "factor": 2.0, "finetuned": True, **more}
    wanted = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0, **more}
    assert rope_parameters({"rope_scaling": rope}) == wanted
