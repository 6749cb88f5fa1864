"""What ``specdec bench paper`` compares, whatever the user's options are."""

from __future__ import annotations

from typing import Any

import pytest

from specdec.cli.paper_contenders import PUBLISHED, PaperEngines, make_paper_engines
from specdec.errors import OptionError
from specdec.plugin.registry import Registry

LOADING: dict[str, Any] = {
    "model": None, "dtype": None, "device": None, "pack": False, "compile": False,
    "trust_remote_code": False,
}  # fmt: skip


def compared(options: dict[str, Any]) -> PaperEngines:
    return make_paper_engines(Registry.load(), LOADING, "eagle2", options, ablations=True)


def policies(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    engines = compared(options).engines
    return {
        label: engine.selection.parsed["policy"].model_dump() for label, engine in engines.items()
    }


def test_published_trees_and_ablations_are_what_they_are_called() -> None:
    """The user's options are those of the strategy itself."""
    found, usual = policies({"eagle2.policy.budget": 8, "policy.top_k": 3}), policies({})
    assert PUBLISHED.items() <= found["eagle2:published"].items()
    assert (found["eagle2"]["budget"], found["eagle2"]["top_k"]) == (8, 3)
    assert len(found) > 10
    for label in found.keys() - {"eagle2"}:
        assert found[label] == usual[label]


def test_one_ablation_alone_couples_drafts() -> None:
    found = policies({})
    coupled = {label for label, policy in found.items() if policy["coupled"]}
    assert coupled == {"eagle2:coupled60"}


@pytest.mark.parametrize("label", ["eagle2:published", "eagle2:k2"])
def test_an_option_that_contradicts_a_variant_is_refused(label: str) -> None:
    with pytest.raises(OptionError, match=f"{label} is what it is by top_k="):
        compared({f"{label}.policy.top_k": 3})
