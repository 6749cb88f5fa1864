"""Without a drafter for the model, ``auto`` drafts from the text itself and says so once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from specdec import Engine
from specdec.errors import DrafterWarning, OptionError
from specdec.testing.fake_clock import fake_clock

# Texts that repeat themselves, so that there is something to draft from.
PROMPTS = [[5, 9, 1, 7] * 8, [4], [6, 7, 1, 22] * 5]
WAYS: dict[str, dict[str, Any]] = {
    "by costs": {},
    "without costs": {"options": {"policy": {"size_by_cost": False}}},
    "path by path": {"verifier": "path"},
}


def auto(plain: Engine, **changes: Any) -> Engine:
    with pytest.warns(UserWarning, match="drafts from the text itself"):
        return plain.with_strategy("auto", **changes)


def test_the_default_works_on_a_model_without_a_head_and_says_once_what_brings_more(
    model: Any, tokenizer: Any
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine = Engine(model, tokenizer=tokenizer)
        for prompt in PROMPTS:
            engine.generate(prompt, max_new_tokens=4)
        list(engine.stream("ABC", max_new_tokens=4))
    (warning,) = [each for each in caught if "drafts from the text" in str(each.message)]
    for part in ("'auto'", "prompt lookup", "drafter=<folder or hub id>"):
        assert part in str(warning.message)
    assert warning.filename == __file__
    assert engine.strategy.name == "auto" and engine.selection.names["drafter"] is None


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("way", WAYS)
def test_drafting_from_the_text_alone_is_plain_decoding(
    plain: Engine, way: str, temperature: float
) -> None:
    engine = auto(plain, **WAYS[way])
    settings = {"max_new_tokens": 30, "temperature": temperature, "seed": 5, "eos_token_id": [29]}
    for prompt in (*PROMPTS, PROMPTS):
        assert tiny.tokens(engine, prompt, **settings) == tiny.tokens(plain, prompt, **settings)


def test_drafts_from_the_text_alone_are_accepted() -> None:
    """With a model whose next token depends on the last one alone, so that its text loops."""
    looping = tiny.make_model()
    with torch.no_grad():
        for layer in looping.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    plain = Engine(looping, strategy="plain")
    engine = auto(plain, options={"policy": {"size_by_cost": False}})
    result = engine.generate([3], max_new_tokens=120, temperature=0, eos_token_id=[])
    assert result.stats.tau > 1.5
    assert result.stats.draft_forwards == 0
    with fake_clock():  # so that costs are the same in every run
        result = auto(plain).generate([3], max_new_tokens=120, temperature=0, eos_token_id=[])
    assert result.stats.tau > 1.1


def test_without_a_drafter_no_level_is_ever_drafted(plain: Engine) -> None:
    engine = auto(plain)
    with fake_clock():
        for prompt in PROMPTS * 2:
            result = engine.generate(prompt, max_new_tokens=40, eos_token_id=[])
            assert result.stats.draft_forwards == 0


def test_a_session_goes_on_without_a_drafter(plain: Engine) -> None:
    session = auto(plain).session()
    prompt = PROMPTS[0]
    for _ in range(3):
        result = session.generate(prompt, max_new_tokens=8, temperature=0)
        assert result.token_ids == tiny.tokens(plain, prompt, max_new_tokens=8, temperature=0)
        prompt = [*prompt, *result.token_ids, 5, 9]


def test_a_head_is_used_where_there_is_one(plain: Engine, head: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DrafterWarning)  # a random head predicts little
        engine = plain.with_strategy("auto", drafter=head)
    assert engine.selection.names["drafter"] == "eagle"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"strategy": "eagle2"}, "'eagle' needs a head: give drafter="),
        ({"strategy": "static_tree"}, "'eagle' needs a head"),
        ({"strategy": "draft_model"}, "'draft_model' needs a model: give drafter="),
        ({"strategy": "auto", "drafter": "eagle"}, "'eagle' needs a head"),
        ({"strategy": "auto", "drafter": "draft_model"}, "'draft_model' needs a model"),
        ({"strategy": "auto", "options": {"drafter": {"vocabulary": 8}}}, "'eagle' needs a head"),
    ],
)
def test_what_needs_a_checkpoint_says_so_and_names_what_does_not(
    plain: Engine, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(OptionError, match=says) as error:
        plain.with_strategy(**arguments)
    assert "Strategies that need none: auto, lookahead, lookup, plain" in str(error.value)


def test_nothing_left_to_draft_with_is_refused(plain: Engine) -> None:
    with pytest.raises(OptionError, match="nothing is left to draft with"):
        plain.with_strategy("auto", options={"policy": {"prompt_lookup": False}})
