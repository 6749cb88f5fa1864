"""What an alias knows of a model goes with it under its hub id too, and changes no text."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPTS

import specdec.engine
import specdec.hf
from specdec import Engine, ModelAlias, hookimpl
from specdec.errors import CheckpointError
from specdec.plugin.registry import Registry

HUB = "org/tiny"
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 12, "eos_token_id": []}


class Known:
    """A plugin with an alias."""

    def __init__(self, head: Path, model: str = HUB, **more: Any) -> None:
        self.head, self.model, self.more = head, model, more

    @hookimpl
    def specdec_models(self) -> list[ModelAlias]:
        options = {"eagle2": {"policy": {"budget": 7}}, "auto": {"policy": {"budget": 7}}}
        alias = ModelAlias(
            name="tiny",
            model=self.model,
            drafters={"eagle": str(self.head)},
            options=options,
            **self.more,
        )
        return [alias]


def loaded(**changes: Any) -> Any:
    """A model as it is loaded from the hub."""
    model = tiny.make_model(tiny.llama_config(**changes))
    model.config.name_or_path = HUB
    return model


@pytest.mark.parametrize("strategy", ["auto", "eagle2"])
def test_a_model_loaded_from_the_hub_id_of_an_alias_has_its_drafter_and_options(
    strategy: str, plain: Engine, head: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = Engine(loaded(), strategy=strategy, plugins=[Known(head)])
    assert engine.selection.checkpoint == str(head)
    assert engine.selection.options["policy"]["budget"] == 7
    assert engine.model_name == HUB and engine.target.dtype == torch.float64, "as it was given"
    assert tiny.tokens(engine, PROMPTS, **GREEDY) == tiny.tokens(plain, PROMPTS, **GREEDY)
    assert engine.with_strategy("chain").selection.checkpoint == str(head)


@pytest.mark.parametrize(("device", "depth", "budget"), [("cpu", 2, 5), ("cuda", None, 7)])
def test_options_for_a_cpu_count_where_the_target_is_on_one(
    monkeypatch: pytest.MonkeyPatch, head: Path, device: str, depth: int | None, budget: int
) -> None:
    monkeypatch.setattr(specdec.engine, "device_of", lambda module: torch.device(device))
    known = Known(head, cpu_options={"eagle2": {"policy": {"depth": 2, "budget": 5}}})
    engine = Engine(loaded(), strategy="eagle2", plugins=[known])
    for each in (engine, engine.with_strategy("eagle2")):
        policy = each.selection.options["policy"]
        assert (policy.get("depth"), policy["budget"]) == (depth, budget)
    given = engine.with_strategy("eagle2", options={"policy": {"budget": 6}})
    assert given.selection.options["policy"]["budget"] == 6


@pytest.mark.parametrize("strategy", ["eagle2", "eagle3"])
def test_trees_fitted_to_a_cpu_are_not_for_other_devices(strategy: str) -> None:
    for alias in Registry.load().models.values():
        assert "policy" not in alias.fitting(strategy, on_cpu=False)
        if strategy in alias.options:
            assert alias.fitting(strategy, on_cpu=True)["policy"]["budget"] <= 8


def test_a_hub_id_is_loaded_from_the_hub_with_the_drafter_of_its_alias(
    model: Any, head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder = tiny.save_model(model, tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    engine = Engine(HUB, strategy="eagle2", plugins=[Known(head)])
    assert engine.model_name == HUB and engine.selection.checkpoint == str(head)
    assert engine.target.dtype == torch.float64, "the checkpoint's own"


def test_a_drafter_that_is_given_comes_before_that_of_the_alias(head: Path, tmp_path: Path) -> None:
    other = shutil.copytree(head, tmp_path / "other")
    engine = Engine(loaded(), strategy="eagle2", drafter=other, plugins=[Known(head)])
    assert engine.selection.checkpoint == str(other)
    assert "budget" not in engine.selection.options["policy"], "a tree for the alias's own head"


def test_a_model_of_other_sizes_under_that_name_is_decoded_without_the_drafter(
    head: Path,
) -> None:
    model = loaded(hidden_size=64)
    with pytest.warns(UserWarning, match="the name of 'tiny', whose drafter does not go with it"):
        engine = Engine(model, plugins=[Known(head)])
    assert engine.selection.checkpoint is None
    alone = Engine(model, strategy="plain")
    assert tiny.tokens(engine, PROMPTS, **GREEDY) == tiny.tokens(alone, PROMPTS, **GREEDY)
    with pytest.raises(CheckpointError, match="is for a target of hidden_size"):
        Engine(model, strategy="eagle2", plugins=[Known(head)])
    bare = Engine(model, strategy="plain", plugins=[Known(head)])
    with pytest.warns(UserWarning, match="the name of 'tiny', whose drafter does not go with it"):
        assert bare.with_strategy("auto").selection.checkpoint is None


def test_in_generate_of_transformers_too(head: Path) -> None:
    model, ids = loaded(), torch.tensor(PROMPTS[:1])
    decoder = specdec.hf.decoder(plugins=[Known(head)])
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.generate(ids, custom_generate=decoder, **settings)
    assert found.equal(model.generate(ids, **settings))


def test_a_folder_is_known_by_no_alias(model: Any, head: Path, tmp_path: Path) -> None:
    folder = str(tiny.save_model(model, tmp_path / "model"))
    engine = Engine(folder, strategy="plain", plugins=[Known(head, folder)])
    assert engine._alias is None and engine.model_name == folder
