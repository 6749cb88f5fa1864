"""What specdec cannot do in generate is refused by name; every setting is accounted for."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hf_batches import PROMPTS, both, padded

import specdec.hf
from specdec.errors import OptionError, PromptError
from specdec.hf import refusals

ON: dict[str, Any] = {
    "num_beams": 3,
    "num_beam_groups": 2,
    "penalty_alpha": 0.6,
    "dola_layers": "high",
    "constraints": [3],
    "force_words_ids": [[3]],
    "use_mtp": True,
    "prompt_lookup_num_tokens": 4,
    "assistant_early_exit": 2,
    "token_healing": True,
    "is_assistant": True,
    "output_attentions": True,
    "output_hidden_states": True,
    "cache_implementation": "static",
    "cache_config": {"backend": "quanto"},
    "max_cache_len": 64,
    "prefill_chunk_size": 4,
    "compile_config": hf.CompileConfig(),
    "continuous_batching_config": {"block_size": 4},
}
IDLE: dict[str, Any] = {
    "early_stopping": True,
    "length_penalty": 2.0,
    "diversity_penalty": 0.5,
    "low_memory": True,
    "decoder_start_token_id": 3,
    "num_assistant_tokens": 3,
    "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.1,
    "assistant_lookbehind": 3,
    "target_lookbehind": 3,
    "assistant_ensemble_weight": 0.5,
    "max_matching_ngram_size": 3,
    "speculation_type": "greedy",
    "use_cache": False,
    "disable_compile": True,
}


def test_every_field_of_a_generation_config_is_accounted_for_once() -> None:
    tables = [refusals.HONOURED, refusals.WITHOUT_EFFECT.keys(), refusals.REFUSED.keys()]
    listed = [name for table in tables for name in table]
    assert len(listed) == len(set(listed))
    fields = {name for name in vars(hf.GenerationConfig()) if not name.startswith("_")}
    assert set(listed) == fields


@pytest.mark.parametrize("name", refusals.REFUSED)
def test_what_cannot_be_honoured_is_refused_by_its_name(name: str) -> None:
    config = hf.GenerationConfig()
    setattr(config, name, ON[name])
    with pytest.raises(OptionError, match=f"cannot honour {name}=") as error:
        refusals.check_config(config)
    assert "\n" not in str(error.value) and len(str(error.value)) < 250
    for off in (None, *refusals.REFUSED[name][0]):
        setattr(config, name, off)
        refusals.check_config(config)


@pytest.mark.parametrize(
    "name",
    [
        "num_beams", "penalty_alpha", "prompt_lookup_num_tokens", "output_attentions",
        "output_hidden_states", "cache_implementation", "prefill_chunk_size",
    ],
)  # fmt: skip
def test_a_refusal_comes_out_of_generate(model: Any, name: str) -> None:
    decoder = specdec.hf.decoder("lookup")
    with pytest.raises(OptionError, match=f"cannot honour {name}="):
        model.generate(**padded(PROMPTS), custom_generate=decoder, **{name: ON[name]})


@pytest.mark.parametrize("name", ["assistant_model", "synced_gpus"])
def test_arguments_that_transformers_drops_are_refused_too(model: Any, name: str) -> None:
    value = model if name == "assistant_model" else True
    decoder = specdec.hf.decoder("lookup")
    with pytest.raises(OptionError, match=f"cannot honour {name} "):
        model.generate(**padded(PROMPTS[:1]), custom_generate=decoder, **{name: value})


@pytest.mark.parametrize("name", IDLE)
def test_what_changes_nothing_changes_nothing_and_is_told(model: Any, name: str) -> None:
    plain, _ = both(model, PROMPTS, eos_token_id=None)
    with pytest.warns(UserWarning, match=f"{name}=.* has no effect in specdec's generate"):
        theirs, ours = both(model, PROMPTS, eos_token_id=None, **{name: IDLE[name]})
    assert ours.equal(theirs) and ours.equal(plain)


def test_every_setting_without_effect_is_tried_and_told_but_for_a_note() -> None:
    assert refusals.WITHOUT_EFFECT.keys() - IDLE.keys() == {"transformers_version"}


def test_what_nobody_asked_for_is_not_told() -> None:
    own = tiny.make_model()
    own.generation_config.use_cache = False
    own.generation_config.num_assistant_tokens = 7
    for more in ({}, {"num_assistant_tokens": 7}, {"disable_compile": False}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            both(own, PROMPTS[:1], eos_token_id=None, **more)


def filled(model: Any) -> Any:
    cache = hf.DynamicCache()
    model(torch.tensor([PROMPTS[0][:4]]), cache=cache)
    return cache


MASKS = {
    "padding on the right": [[1] * 8 + [0, 0]],
    "a hole": [[1, 1, 0, 1, 1, 1, 1, 1, 1, 1]],
    "other numbers": [[2] * 10],
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_that_are_no_left_padding_are_refused(model: Any, kind: str) -> None:
    with pytest.raises(PromptError, match="attention_mask"):
        model.generate(
            torch.tensor(PROMPTS[:1]),
            attention_mask=torch.tensor(MASKS[kind]),
            custom_generate=specdec.hf.decoder("lookup"),
        )


@pytest.mark.parametrize("name", ["cache", "an empty cache", "position_ids", "inputs_embeds"])
def test_inputs_beside_the_text_are_refused(model: Any, name: str) -> None:
    ids = torch.tensor(PROMPTS[:1])
    value = {
        "cache": lambda: filled(model),
        "an empty cache": hf.DynamicCache,  # which would have to be filled
        "position_ids": lambda: torch.arange(3, 13)[None],
        "inputs_embeds": lambda: model.get_input_embeddings()(ids),
    }[name]()
    name = name.removeprefix("an empty ")
    with pytest.raises(PromptError, match=name):
        model.generate(ids, custom_generate=specdec.hf.decoder("lookup"), **{name: value})


def test_embeddings_in_place_of_tokens_are_refused_by_name(model: Any) -> None:
    embedded = model.get_input_embeddings()(torch.tensor(PROMPTS[:1]))
    masks: list[dict[str, Any]] = [{}, {"attention_mask": torch.ones(embedded.shape[:2]).long()}]
    for mask in masks:
        with pytest.raises(PromptError, match="cannot honour inputs_embeds"):
            model.generate(
                inputs_embeds=embedded, custom_generate=specdec.hf.decoder("plain"), **mask
            )


def test_a_prompt_without_tokens_is_refused(model: Any) -> None:
    with pytest.raises(PromptError, match=r"input_ids \[2, 0\] have no tokens: give at least one"):
        model.generate(
            torch.zeros(2, 0, dtype=torch.long), custom_generate=specdec.hf.decoder("plain")
        )


@pytest.mark.parametrize("name", ["attention_mask", "position_ids"])
@pytest.mark.parametrize("shape", [(1, 3), (1, 7), (3, 5), (3, 1)])
def test_a_mask_or_positions_of_another_shape_are_refused(
    model: Any, name: str, shape: tuple[int, int]
) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    given = torch.ones(shape).long()
    if name == "position_ids":
        given = given.cumsum(-1) - 1
    for value in (given, given.clone().index_fill_(1, torch.tensor([0]), 0)):
        with pytest.raises(PromptError) as error:
            model.generate(ids, custom_generate=specdec.hf.decoder("plain"), **{name: value})
        assert name in str(error.value) and "[1, 5]" in str(error.value)


@pytest.mark.parametrize("name", ["position_ids", "logits_to_keep", "token_type_ids"])
def test_inputs_of_another_type_are_refused_by_name(model: Any, name: str) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    for value in ([[0, 1, 2, 3, 4]], torch.tensor([1, 2]), "x"):
        with pytest.raises(PromptError, match=name):
            refusals.check_inputs(None, ids, {name: value})


def test_positions_that_are_the_numbers_of_the_tokens_are_taken(model: Any) -> None:
    theirs, _ = both(model, PROMPTS[:1], eos_token_id=None)
    _, ours = both(model, PROMPTS[:1], eos_token_id=None, position_ids=torch.arange(10)[None])
    assert ours.equal(theirs)


def test_a_prompt_that_leaves_no_room_in_the_context_ends_with_a_warning(model: Any) -> None:
    context = model.config.max_position_embeddings
    ids = torch.randint(1, 50, (1, context - 3), generator=torch.Generator().manual_seed(0))
    decoder = specdec.hf.decoder("lookup")
    with pytest.warns(UserWarning, match="no room for 9 new ones"):
        found = model.generate(ids, custom_generate=decoder, max_new_tokens=9, eos_token_id=None)
    assert found.shape[1] == context
