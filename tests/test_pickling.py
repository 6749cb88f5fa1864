"""An engine is pickled as its arguments: for spawned processes and actors."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import PROMPTS

from specdec import Engine, Strategy, hookimpl

SETTINGS = {"max_new_tokens": 6, "temperature": 1.0, "seed": 3}


def copied(engine: Engine) -> Engine:
    made = pickle.loads(pickle.dumps(engine))  # noqa: S301
    assert isinstance(made, Engine) and made is not engine
    return made


def test_an_engine_from_a_folder_is_pickled_as_its_arguments(
    model: Any, tokenizer: Any, head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save_model(model, tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    plain = Engine("model/", strategy="plain", dtype="float32")
    engine = plain.with_strategy("eagle2", drafter=head, options=tiny.EAGLE2)
    dumped = pickle.dumps(engine)
    assert len(dumped) < 5000  # no weights
    monkeypatch.chdir("/")
    made = pickle.loads(dumped)  # noqa: S301
    assert made.strategy.name == "eagle2" and made.selection.options == engine.selection.options
    assert made.target.dtype == engine.target.dtype
    assert made.generate("ABC", **SETTINGS).text == engine.generate("ABC", **SETTINGS).text


def test_an_engine_on_a_loaded_model_is_pickled_with_it(
    model: Any, tokenizer: Any, draft: Path
) -> None:
    engine = Engine(model, strategy="plain", tokenizer=tokenizer, dtype="float32")
    drafting = engine.with_strategy("draft_model", drafter=tiny.noisy_copy(model))
    for each in (engine, drafting):
        made = copied(each)
        assert made.target.dtype == each.target.dtype
        assert made.generate("ABC", **SETTINGS).text == each.generate("ABC", **SETTINGS).text
        assert made.strategy == each.strategy


def test_paths_are_those_of_the_directory_in_which_the_engine_was_made(
    model: Any, draft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save_model(model, tmp_path / "eagle")  # a drafter's name, yet a folder
    (tmp_path / "draft").symlink_to(draft)
    (tmp_path / "ids.json").write_text("[5, 9, 11, 22]")
    monkeypatch.chdir(tmp_path)
    options = {
        "policy": {**tiny.AUTO["policy"], "calibration_file": "learned.json"},
        "drafter": {"checkpoint": "draft", "vocabulary": "ids.json"},
    }
    plain = Engine("eagle", strategy="plain")
    drafting = plain.with_strategy("auto", drafter="draft_model", options=options)
    whole = Engine("eagle", strategy="auto", drafter="draft_model", options=options)
    monkeypatch.chdir("/")
    for each in (drafting, whole):
        made = copied(each).selection.options
        assert made["drafter"]["checkpoint"] == str(draft.resolve())
        assert made["drafter"]["vocabulary"] == str(tmp_path / "ids.json")
        assert made["policy"]["calibration_file"] == str(tmp_path / "learned.json")
    assert copied(plain).generate(PROMPTS[0], **SETTINGS).stats.new_tokens == 6


def test_what_was_changed_on_an_engine_goes_along(tmp_path: Path) -> None:
    model, tokenizer = tiny.make_model(), tiny.make_tokenizer()
    tiny.save_model(model, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = Engine(model, strategy="plain", tokenizer=tokenizer)
    for engine in (Engine(tmp_path, strategy="plain"), loaded):
        engine.generation_config.max_new_tokens = 5
        made = copied(engine).with_strategy("lookup")
        assert made.generate(PROMPTS[0], eos_token_id=[]).stats.new_tokens == 5
        assert engine.tokenizer is not None
        engine.tokenizer.chat_template = "AB"
        again = copied(copied(engine))
        assert again.tokenizer.chat_template == "AB"
        assert again.generation_config.max_new_tokens == 5
        engine.tokenizer = None
        assert copied(copied(engine)).tokenizer is None


class Plugin:
    """A plugin object that another process can import."""

    @hookimpl
    def specdec_strategies(self) -> list[Strategy]:
        return [Strategy("mine")]


def test_plugins_go_along_where_they_can_be_imported(model: Any) -> None:
    import specdec_plugins.lookup as installed

    engine = Engine(model, strategy="mine", plugins=[Plugin(), installed])
    assert copied(engine).strategy.name == "mine"
    loose = types.ModuleType("loose")
    vars(loose)["specdec_strategies"] = hookimpl(lambda: [], specname="specdec_strategies")
    engine = Engine(model, strategy="plain", plugins=[loose])
    with pytest.raises(pickle.PicklingError, match=r"'loose' .*a file of its own"):
        pickle.dumps(engine)


def generate(engine: Engine, prompt: list[int]) -> Any:
    return tiny.tokens(engine, prompt, **SETTINGS)


@pytest.mark.slow
def test_a_spawned_process_gets_the_engine(model: Any) -> None:
    engine = Engine(model, strategy="lookup")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = pool.apply(generate, (engine, PROMPTS[0]))
    assert got == generate(engine, PROMPTS[0])
    assert "tiny" in sys.modules
