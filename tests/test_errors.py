"""Bad input is refused with an error that says what was given, what is allowed and what is near."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPTS, SHAPE

from specdec import Engine, SpecdecError
from specdec.errors import (
    CheckpointError,
    OptionError,
    PromptError,
    UnknownNameError,
)
from specdec.plugin.registry import Registry

# (arguments of with_strategy, what the message must say)
NAMES: list[tuple[dict[str, Any], list[str]]] = [
    ({"strategy": "eagel2"}, ["unknown strategy 'eagel2'", "did you mean 'eagle2'?", "plain"]),
    (
        {"strategy": "plain", "acceptor": "mach"},
        ["unknown acceptor 'mach'", "'match'", "rejection"],
    ),
    ({"strategy": "plain", "verifier": "trees"}, ["unknown verifier 'trees'", "'tree'", "path"]),
    ({"strategy": "eagle2", "policy": "egale2"}, ["unknown policy 'egale2'", "'eagle2'", "chain"]),
    (
        {"strategy": "eagle2", "drafter": "eagel"},
        ["unknown drafter 'eagel'", "did you mean 'eagle'?", "folder or hub id"],
    ),
    (
        {"strategy": "eagle2", "options": {"polcy": {}}},
        ["unknown role 'polcy'", "did you mean 'policy'?"],
    ),
    (
        {"strategy": "eagle2", "options": {"policy": {"topk": 3}}},
        [
            "option of the policy 'eagle2': 'topk'",
            "did you mean 'top_k'?",
            "budget, coupled, depth, rerank",
        ],
    ),
]
MANY_NODES = [[n, *[0] * level] for n in range(130) for level in range(16)]
VALUES: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"strategy": "eagle2", "options": {"policy": {"budget": 0}}},
        ["policy.budget=0", "greater than or equal to 1", "draft tokens verified in a step"],
    ),
    ({"strategy": "eagle2", "options": {"policy": {"depth": "deep"}}}, ["policy.depth='deep'"]),
    (
        {"strategy": "static_tree", "options": {"policy": {"choices": [[1, 0]]}}},
        ["policy.choices", "needs its parent [1]"],
    ),
    (
        {"strategy": "static_tree", "options": {"policy": {"coupled": True, "sampled": True}}},
        ["sampled and coupled", "give one of them"],
    ),
    (
        {
            "strategy": "static_tree",
            "options": {"policy": {"choices": [[0], [2]], "sampled": True}},
        },
        ["[2] needs [1]", "where children are sampled"],
    ),
    (
        {"strategy": "eagle2", "options": {"policy": {"top_k": 100_000}}},
        ["policy.top_k=100000", "less than or equal to 256", "children of each"],
    ),
    (
        {"strategy": "auto", "options": {"policy": {"budget": 100_000}}},
        ["policy.budget=100000", "less than or equal to 1024"],
    ),
    (
        {"strategy": "static_tree", "options": {"policy": {"choices": [[99_999_999]]}}},
        ["policy.choices", "[99999999] has the rank 99999999", "ranks from 0 to 255"],
    ),
    (
        {"strategy": "static_tree", "options": {"policy": {"choices": MANY_NODES}}},
        ["policy.choices", "2,080 nodes: give at most 1,024"],
    ),
    (
        {"strategy": "static_tree", "options": {"policy": {"choices": [[0] * 65]}}},
        ["policy.choices", "a path of 65 tokens: give at most 64 levels"],
    ),
    ({"strategy": "plain", "drafter": "some/head"}, ["'plain' drafts nothing"]),
    (
        {"strategy": "plain", "options": {"policy": {"depth": 2}}},
        ["'plain' has no policy", "takes no such options"],
    ),
    ({"strategy": "eagle2"}, ["'eagle' needs a head", "drafter=<folder or hub id>"]),
    ({"strategy": "draft_model"}, ["'draft_model' needs a model"]),
]


def check(error: pytest.ExceptionInfo[SpecdecError], says: list[str]) -> None:
    message = str(error.value)
    for part in says:
        assert part in message, f"{part!r} is not in: {message}"


@pytest.mark.parametrize(("arguments", "says"), NAMES, ids=lambda v: str(v)[:50])
def test_unknown_names_are_told_with_the_nearest(
    plain: Engine, arguments: dict[str, Any], says: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError) as error:
        plain.with_strategy(**arguments)
    check(error, says)
    assert isinstance(error.value, LookupError)


@pytest.mark.parametrize(("arguments", "says"), VALUES, ids=lambda v: str(v)[:50])
def test_values_of_options_are_checked(
    plain: Engine, arguments: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(OptionError) as error:
        plain.with_strategy(**arguments)
    check(error, says)
    assert isinstance(error.value, ValueError)


def test_every_count_of_what_drafts_has_an_upper_bound() -> None:
    components, counts = Registry.load().components, 0
    for component in [*components["policy"].values(), *components["drafter"].values()]:
        for name, info in component.options.model_fields.items():
            if info.annotation is int:
                bounds = [getattr(rule, "le", None) for rule in info.metadata]
                assert any(bounds), (component.name, name)
                counts += 1
    assert counts > 15


MODELS: list[Any] = [
    ({"model": "chat-7n"}, UnknownNameError, ["unknown model 'chat-7n'", "'chat-7m'", "hub id"]),
    ({"model": "/no/such/folder"}, CheckpointError, ["/no/such/folder", "existing folder"]),
    ({"model": 7}, OptionError, ["not int"]),
    ({"dtype": "float31"}, UnknownNameError, ["unknown dtype 'float31'", "'float32'", "bfloat16"]),
    pytest.param(
        {"strategy": 3},
        SpecdecError,
        ["strategy", "3"],
    ),
    pytest.param(
        {"options": {"acceptor": 3}},
        SpecdecError,
        ["acceptor", "3"],
    ),
    ({"model": ""}, CheckpointError, ["name of the model is empty", "give a folder or a hub id"]),
    ({"model": Path("  ")}, SpecdecError, ["name of the model is empty"]),
    ({"device": ""}, OptionError, ["device=''"]),
    ({"device": "toaster"}, OptionError, ["device='toaster'"]),
    ({"strategy": "nonsense"}, UnknownNameError, ["unknown strategy 'nonsense'", "eagle2"]),
]


@pytest.mark.parametrize(("arguments", "kind", "says"), MODELS, ids=lambda v: str(v)[:40])
def test_models_dtypes_and_devices_are_checked(
    model: Any, arguments: dict[str, Any], kind: type[SpecdecError], says: list[str]
) -> None:
    with pytest.raises(kind) as error:
        Engine(**{"model": model, "strategy": "plain", **arguments})
    check(error, says)


# (arguments of generate, what the message must say)
@pytest.mark.parametrize(
    "arguments",
    [
        {"drafter": ""},
        {"drafter": "\t"},
        {"options": {"drafter": {"checkpoint": ""}}},
        {"policy": ""},
        {"verifier": ""},
        {"acceptor": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("strategy", ["eagle2", "draft_model", "medusa"])
def test_an_empty_name_is_neither_this_folder_nor_the_default(
    plain: Engine, arguments: dict[str, Any], strategy: str
) -> None:
    with pytest.raises(SpecdecError, match=r"is empty, '|unknown \w+ ''") as error:
        plain.with_strategy(strategy, **arguments)
    assert "config.json" not in str(error.value)


CALLS: list[tuple[dict[str, Any], type[SpecdecError], list[str]]] = [
    ({"max_new_token": 3}, UnknownNameError, ["'max_new_token'", "did you mean 'max_new_tokens'?"]),
    ({"temprature": 1}, UnknownNameError, ["did you mean 'temperature'?"]),
    ({"max_new_tokens": 0}, OptionError, ["max_new_tokens=0", "at least 1"]),
    ({"max_new_tokens": -4}, OptionError, ["max_new_tokens=-4", "at least 1"]),
    ({"max_new_tokens": 2.5}, OptionError, ["max_new_tokens=2.5", "an int"]),
    ({"max_new_tokens": True}, OptionError, ["max_new_tokens=True"]),
    ({"max_length": 5}, OptionError, ["max_length=5", "the prompt alone has 10 tokens"]),
    ({"temperature": -0.1}, OptionError, ["temperature=-0.1", "at least 0"]),
    ({"temperature": float("nan")}, OptionError, ["temperature=nan"]),
    ({"temperature": float("inf")}, OptionError, ["temperature=inf"]),
    ({"temperature": True}, OptionError, ["temperature=True", "a number"]),
    ({"temperature": "hot"}, OptionError, ["temperature='hot'", "a number"]),
    ({"top_k": -1}, OptionError, ["top_k=-1", "0 turns it off"]),
    ({"top_k": 1.5}, OptionError, ["top_k=1.5"]),
    ({"top_p": 0}, OptionError, ["top_p=0", "above 0"]),
    ({"top_p": 1.2}, OptionError, ["top_p=1.2", "at most 1"]),
    ({"min_p": -1}, OptionError, ["min_p=-1"]),
    ({"min_p": float("nan")}, OptionError, ["min_p=nan"]),
    ({"repetition_penalty": 0}, OptionError, ["repetition_penalty=0", "above 0"]),
    ({"num_beams": 4}, OptionError, ["num_beams=4 is not supported", "temperature"]),
    ({"num_return_sequences": 2}, OptionError, ["num_return_sequences", "greedy"]),
    ({"penalty_alpha": 0.5}, OptionError, ["penalty_alpha=0.5 is not supported"]),
    ({"seed": [1, 2]}, OptionError, ["2 entries for 1 prompts", "one per prompt"]),
    ({"seed": 1.5}, OptionError, ["seed must be an int", "1.5"]),
    ({"stop": ""}, OptionError, ["non-empty string"]),
    ({"stop": [3]}, OptionError, ["non-empty string"]),
]


@pytest.mark.parametrize(("arguments", "kind", "says"), CALLS, ids=lambda v: str(v)[:40])
def test_arguments_of_generate_are_checked(
    plain: Engine, arguments: dict[str, Any], kind: type[SpecdecError], says: list[str]
) -> None:
    with pytest.raises(kind) as error:
        plain.generate(PROMPTS[0], **arguments)
    check(error, says)


# Values that transformers or Python would turn down with an error of their own.
RAW: list[tuple[dict[str, Any], str]] = [
    ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
    ({"min_new_tokens": -3, "eos_token_id": 3}, "min_new_tokens"),
    ({"top_h": 3.0, "temperature": 1}, "top_h"),
    ({"eos_token_id": "x"}, "eos_token_id"),
    ({"logits_processor": 3}, "logits_processor"),
    ({"logits_processor": ["a"]}, "logits_processor"),
]


@pytest.mark.parametrize(("arguments", "says"), RAW, ids=lambda v: str(v)[:40])
def test_rarer_arguments_of_generate_are_checked(
    plain: Engine, arguments: dict[str, Any], says: str
) -> None:
    try:
        plain.generate(PROMPTS[0], max_new_tokens=2, **arguments)
    except SpecdecError as error:
        assert says in str(error)
    else:
        raise AssertionError("not refused")


@pytest.mark.parametrize("temperature", [1e-45, 1e-320])
def test_a_tiny_temperature_is_greedy_or_refused(temperature: float) -> None:
    engine = Engine(tiny.make_model(dtype=torch.float32), strategy="plain")
    settings = {"max_new_tokens": 4, "seed": 1}
    greedy = tiny.tokens(engine, PROMPTS[0], temperature=0, **settings)
    with contextlib.suppress(OptionError):
        assert tiny.tokens(engine, PROMPTS[0], temperature=temperature, **settings) == greedy


LIMIT = SHAPE["max_position_embeddings"]
BAD_PROMPTS: list[Any] = [
    ("", ["empty", "at least one token"]),
    ([], ["empty list"]),
    ([[1], []], ["prompt 1 is empty"]),
    pytest.param(
        torch.zeros(0, dtype=torch.int64),
        ["empty"],
    ),
    (torch.zeros(2, 2), ["integer tensor", "float32"]),
    (torch.zeros(1, 2, 2, dtype=torch.int64), ["[1, 2, 2]"]),
    ([1, 60], ["token id 60", "ends at 59"]),
    ([-1], ["token id -1"]),
    ([1] * LIMIT, [f"{LIMIT} tokens", f"at most {LIMIT - 1}"]),
    ([1] * 4000, ["4000 tokens"]),
    (3.5, ["cannot be float"]),
    (None, ["cannot be NoneType"]),
    ([[[1]]], ["nested too deeply"]),
    ([1.5], ["cannot be"]),
    ([True, False], ["cannot be"]),
    pytest.param(
        {"input_ids": [5, 9], "attention_mask": [1]},
        ["attention_mask"],
    ),
    pytest.param(
        {"input_ids": ["a"]},
        ["input_ids"],
    ),
]


@pytest.mark.parametrize(("prompt", "says"), BAD_PROMPTS, ids=lambda v: str(v)[:30])
def test_prompts_are_checked(plain: Engine, prompt: Any, says: list[str]) -> None:
    with pytest.raises(PromptError) as error:
        plain.generate(prompt, max_new_tokens=2)
    check(error, says)


def test_what_needs_a_tokenizer_says_so(model: Any) -> None:
    bare = Engine(model, strategy="plain")
    with pytest.raises(PromptError, match="text needs a tokenizer"):
        bare.generate("ABC")
    with pytest.raises(PromptError, match="stop strings need a tokenizer"):
        bare.generate([1, 2], stop="A")
    with pytest.raises(PromptError, match="streaming text needs a tokenizer"):
        bare.stream([1, 2])
    with pytest.raises(PromptError, match="chat template"):
        bare.generate([{"role": "user", "content": "A"}])
