"""Arguments that are True or False take nothing else: words such as "no" count as true."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import specdec.hf
from specdec import Engine, bench
from specdec.errors import OptionError
from specdec.jobs import answer_rows, run_job
from specdec.models.checkpoints import load_model, load_tokenizer, resolve_model
from specdec.plugin.loading import find_model, load_target
from specdec.testing.stray_randomness import only_keyed_randomness
from specdec.testing.subject import Subject
from specdec.testing.suite import PROPERTIES, check
from specdec.training.pipeline import train

NEITHER = ["no", "false", "yes", "", 0, 1, [], np.bool_(False)]
CHAT = [{"role": "user", "content": "A"}]


def train_in(place: Path, **given: Any) -> Any:
    return train("chat-7m", data=place / "in.jsonl", out=place / "out", **given)


# What takes such arguments, and a call of it with an engine and a folder.
CALLS: dict[Callable[..., Any], Callable[..., Any]] = {
    Engine: lambda engine, place, **given: Engine(**given),
    Engine.generate: lambda engine, place, **given: engine.generate(CHAT, **given),
    run_job: lambda engine, place, **given: run_job(
        engine, place / "in.jsonl", place / "out.jsonl", **given
    ),
    train: lambda engine, place, **given: train_in(place, **given),
    bench.run: lambda engine, place, **given: bench.run({"it": engine}, **given),
    bench.run_at: lambda engine, place, **given: bench.run_at(
        [0.0], {"it": engine}, [], bench.Settings(), **given
    ),
    check: lambda engine, place, **given: check(Subject("plain"), PROPERTIES[0], **given),
    Subject: lambda engine, place, **given: Subject("plain", **given),
    only_keyed_randomness: lambda engine, place, **given: only_keyed_randomness(
        **given
    ).__enter__(),
    load_model: lambda engine, place, **given: load_model(
        place, dtype="auto", device="cpu", **given
    ),
    load_tokenizer: lambda engine, place, **given: load_tokenizer(place, **given),
    resolve_model: lambda engine, place, **given: resolve_model(place, **given),
    find_model: lambda engine, place, **given: find_model(None, str(place), **given),
    load_target: lambda engine, place, **given: load_target(None, place, None, None, **given),
}
# That are a bool or something else: what else.
OR = {
    "continue_final_message": lambda value: isinstance(value, str) and value,
    "add_generation_prompt": lambda value: False,
    "progress": lambda value: False,
    "regenerate": lambda value: False,
}


def flags(of: Callable[..., Any]) -> list[str]:
    """The arguments whose annotation has a bool in it."""
    found = inspect.signature(of).parameters.items()
    return [name for name, each in found if "bool" in str(each.annotation).split(" | ")] + [
        name for name, each in found if str(each.annotation).endswith("] | bool")
    ]


ARGUMENTS = sorted(
    {(of.__qualname__, name) for of in CALLS for name in flags(of)},
)


@pytest.mark.parametrize(("of", "name"), ARGUMENTS)
def test_neither_true_nor_false_is_refused_by_name_before_anything_is_done(
    plain: Engine, tmp_path: Path, of: str, name: str
) -> None:
    call = next(call for each, call in CALLS.items() if each.__qualname__ == of)
    for value in NEITHER:
        if OR.get(name, lambda value: False)(value):
            continue
        with pytest.raises(OptionError) as error:
            call(plain, tmp_path, **{name: value})
        assert str(error.value).startswith(f"{name}={value!r}: give True or False")
    assert not list(tmp_path.iterdir())


def test_every_way_to_decode_refuses_them_alike(plain: Engine) -> None:
    for decode in (plain.start, plain.stream, plain.request, plain.session().generate):
        for name in ("add_generation_prompt", "skip_special_tokens", "trace"):
            with pytest.raises(OptionError, match=f"{name}='no': give True or False"):
                decode(CHAT, **{name: "no"})
    (answer,) = answer_rows(plain, [{"messages": CHAT, "add_generation_prompt": "no"}])
    assert "add_generation_prompt='no': give True or False" in answer["error"]["message"]
    with pytest.raises(OptionError, match="add_generation_prompt='no': give True or False"):
        answer_rows(plain, [], settings={"add_generation_prompt": "no"})


@pytest.mark.parametrize("name", flags(Engine))
def test_a_decoder_refuses_them_before_it_is_used(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name}='false': give True or False"):
        specdec.hf.decoder(**{name: "false"})


def test_the_name_of_a_field_to_continue_is_taken(plain: Engine) -> None:
    continued = [*CHAT, {"role": "assistant", "content": "B"}]
    given = plain.generate(continued, continue_final_message="content", max_new_tokens=3)
    assert given.token_ids == plain.generate(
        continued, continue_final_message=True, max_new_tokens=3
    ).token_ids  # fmt: skip


def test_true_and_false_are_taken(plain: Engine, model: Any, tmp_path: Path) -> None:
    folder = tiny.save_model(model, tmp_path / "model")
    for value in (True, False):
        Engine(folder, strategy="plain", trust_remote_code=value, pack=False, compile=False)
        plain.generate(CHAT, max_new_tokens=2, add_generation_prompt=value, trace=value)
