"""Options of a comparison: what is said of few comes before what is said of all, and a drafter goes
to those that draft with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from specdec.cli.compared_engines import choose_labelled
from specdec.cli.options_by_label import options_by_label
from specdec.errors import CheckpointError, OptionError
from specdec.plugin.registry import Registry
from specdec_plugins.hydra.testing import hydra_heads
from specdec_plugins.medusa.testing import medusa_heads

LABELS = ["auto", "draft_model", "eagle2", "eagle2:k5", "eagle3", "hydra", "lookup", "medusa"]
OF_EAGLE = {"auto", "eagle2", "eagle2:k5"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def drafters(registry: Registry, options: dict[str, Any]) -> dict[str, Any]:
    """Which strategy gets which drafter."""
    found = options_by_label(registry, LABELS, options)
    return {key.removesuffix(".drafter"): value for key, value in found.items()}


@given(order=st.permutations(["policy.depth", "eagle2.policy.depth", "eagle2:k5.policy.depth"]))
def test_the_narrower_option_wins_in_any_order(registry: Registry, order: list[str]) -> None:
    depths = {"policy.depth": 2, "eagle2.policy.depth": 3, "eagle2:k5.policy.depth": 4}
    given = {key: depths[key] for key in order}
    chosen = choose_labelled(registry, LABELS, options_by_label(registry, LABELS, given))
    found = {label: chosen[label].options["policy"]["depth"] for label in LABELS[2:5]}
    assert found == {"eagle2": 3, "eagle2:k5": 4, "eagle3": 2}


@pytest.mark.parametrize("last", [True, False])
def test_bench_too_takes_the_narrower_one(registry: Registry, last: bool) -> None:
    keys = ["drafter", "eagle2.drafter", "policy.depth", "eagle2.policy.depth"]
    values = dict(zip(keys, ["B", "A", 2, 3], strict=True))
    given = values if last else dict(reversed(values.items()))
    chosen = choose_labelled(registry, ["eagle2", "eagle3"], given)
    assert [choice.swaps["drafter"] for choice in chosen.values()] == ["A", "B"]
    assert [choice.options["policy"]["depth"] for choice in chosen.values()] == [3, 2]


@pytest.mark.parametrize("first", [True, False])
def test_a_drafter_for_all_leaves_alone_who_has_one_of_its_own(
    registry: Registry, head: Path, first: bool
) -> None:
    pairs = [("drafter", str(head)), ("eagle2.drafter", "own")]
    found = drafters(registry, dict(pairs if first else reversed(pairs)))
    assert found == {"auto": str(head), "eagle2": "own", "eagle2:k5": "own"}


def test_a_checkpoint_goes_to_those_whose_drafter_recognises_it(
    registry: Registry, head: Path, head3: Path, draft: Path, tmp_path: Path
) -> None:
    model = tiny.make_model()
    places = {
        head: OF_EAGLE,
        head3: {*OF_EAGLE, "eagle3"},
        draft: {"draft_model"},
        Path(medusa_heads(model, tmp_path / "medusa")): {"medusa"},
        Path(hydra_heads(model, tmp_path / "hydra")): {"hydra"},
    }
    for place, wanted in places.items():
        assert drafters(registry, {"drafter": str(place)}) == dict.fromkeys(wanted, str(place))


def test_a_drafter_by_name_goes_to_all_that_need_a_checkpoint(registry: Registry) -> None:
    assert set(drafters(registry, {"drafter": "lookup"})) == {*LABELS} - {"lookup"}


@pytest.mark.parametrize("labels", [["lookup"], ["lookup", "medusa"]])
def test_a_drafter_that_none_has_a_use_for_is_refused(
    registry: Registry, head: Path, labels: list[str]
) -> None:
    with pytest.raises(OptionError, match=r"none of the strategies .* has a use for it"):
        options_by_label(registry, labels, {"drafter": str(head)})
    with pytest.raises(CheckpointError, match="there is no drafter at '/typo'"):
        options_by_label(registry, labels, {"drafter": "/typo"})
