"""How good a network is, in one number."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdec import Engine
from specdec.plugin.registry import Registry
from specdec.training.evaluation import TauMeter, expected_accepted
from specdec_plugins.eagle.eagle_recipe import EagleRecipe


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The head of the embedded model, in another folder."""
    own = Registry.load().models["chat-7m"].drafters["eagle"]
    return Path(shutil.copytree(own, tmp_path / "head"))


def test_tau_is_that_of_the_strategys_tree_whatever_suits_the_model(copied: Path) -> None:
    plain = Engine("chat-7m", strategy="plain")
    prompts = [[1, 17, 300, 42, 9], [1, 5, 8]]
    recipe = object.__new__(EagleRecipe)  # its strategy is all that is asked of it
    found = TauMeter(plain, recipe, prompts, 24).of_checkpoint(copied)
    taus = {}
    for tree in ({"depth": 6, "top_k": 10, "budget": 60}, {}):
        options: dict[str, Any] = {"policy": tree}
        engine = plain.with_strategy("eagle2", drafter=copied, options=options)
        results = engine.generate(prompts, max_new_tokens=24, temperature=0)
        stats = [each.stats for each in results]
        tokens = sum(each.new_tokens for each in stats)
        taus[len(tree)] = tokens / sum(each.target_forwards for each in stats)
    assert taus[3] > taus[0]
    assert found == pytest.approx(taus[3], abs=1e-4)


def test_the_drafters_options_of_an_alias_are_for_its_own_checkpoint(copied: Path) -> None:
    def drafter_options(**given: Any) -> Any:
        engine = Engine("chat-7m", strategy="eagle2", **given)
        assert engine.selection.parsed["policy"].budget == 8  # the tree still suits the model
        return engine.selection.parsed["drafter"]

    assert drafter_options().dtype == "bfloat16"
    assert drafter_options(drafter=copied).dtype == "auto"
    assert drafter_options(options={"drafter": {"checkpoint": str(copied)}}).dtype == "auto"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_the_score_is_the_mean_length_of_an_accepted_chain(
    depths: list[float],
) -> None:
    mean = 0.0
    for accepted in itertools.product([True, False], repeat=len(depths)):
        chance = math.prod(d if yes else 1 - d for d, yes in zip(depths, accepted, strict=True))
        mean += chance * len(list(itertools.takewhile(bool, accepted)))
    assert math.isclose(expected_accepted(depths), mean, abs_tol=1e-9)
