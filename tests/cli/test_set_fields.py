"""``--set`` says what no flag says: nothing in it is dropped, overruled or beside a flag."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdec.bench import Settings
from specdec.bench.settings import REFUSED, SAID_BY
from specdec.cli.set_fields import OF_A_CHAT
from specdec.errors import OptionError
from specdec.request.chat_template import Template
from specdec.request.generation_fields import ARGUMENTS

Command = Callable[..., Any]

COMMANDS = {
    "generate": ["generate", "HELLO"],
    "trace": ["trace", "HELLO"],
    "batch": ["batch", "in.jsonl", "out.jsonl"],
    "bench": ["bench"],
    "bench paper": ["bench", "paper", "--out", "results"],
}
# Flags of all commands that decode, but those of a benchmark; and what each says.
FLAGS = {
    "--max-new-tokens": ["max_new_tokens", "max_length"],
    "--temperature": ["temperature", "do_sample"],
    "--top-k": ["top_k"],
    "--top-p": ["top_p"],
    "--min-p": ["min_p"],
    "--repetition-penalty": ["repetition_penalty"],
    "--seed": ["seed"],
    "--stop": ["stop", "stop_strings"],
}
# Those of a benchmark have a value, whether they are given or not.
BENCH = {
    "--max-new-tokens": ["max_new_tokens", "max_length"],
    "--temperature": ["temperature", "do_sample"],
    "--seed": ["seed"],
}


@pytest.fixture
def refused(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The error of a command, which has written nothing and not looked for its model."""
    monkeypatch.chdir(tmp_path)

    def invoke(command: str, *arguments: Any) -> str:
        result = run(*COMMANDS[command], "-m", "no/such/model", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "no/such/model" not in result.stderr
        assert not list(tmp_path.iterdir())
        return str(result.stderr)

    return invoke


@pytest.mark.parametrize("command", ["generate", "trace", "batch"])
def test_what_a_flag_says_set_cannot_say_otherwise(refused: Command, command: str) -> None:
    for flag, names in FLAGS.items():
        for name in names:
            error = refused(command, flag, 1, "--set", f"{name}=2")
            assert f"--set {name}=2" in error and error.rstrip().endswith(flag)


@pytest.mark.parametrize("command", ["bench", "bench paper"])
def test_what_a_benchmark_sets_set_cannot_set(refused: Command, command: str) -> None:
    if command == "bench paper":
        pytest.importorskip("matplotlib")
    for flag, names in BENCH.items():
        for name in names:
            assert refused(command, "--set", f"{name}=1").rstrip().endswith(flag)
    for name in ("stop_strings", "num_return_sequences"):
        assert f"--set {name}=2 cannot be given" in refused(command, "--set", f"{name}=2")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_field_is_refused_and_not_offered(refused: Command, command: str) -> None:
    if command == "bench paper":
        pytest.importorskip("matplotlib")
    chat = set() if "bench" in command else set(OF_A_CHAT)
    for name in set(ARGUMENTS) - chat:
        assert name in refused(command, "--set", f"{name}=true")
    _, _, known = refused(command, "--set", "foo=1").partition("known: ")
    assert not set(known.rstrip(")\n").split(", ")) & (set(ARGUMENTS) - chat)


def test_a_command_without_a_flag_says_which_has_it(refused: Command) -> None:
    for command in ("trace", "batch"):
        for name, flag in {
            "n": "--n",
            "num_return_sequences": "--n",
            "logprobs": "--logprobs",
        }.items():
            error = refused(command, "--set", f"{name}=2")
            assert f"{flag} is for specdec generate" in error
    assert "--explain" in refused("generate", "--set", "trace=true")


def test_a_value_that_says_nothing_or_is_not_allowed_is_refused_before_the_model_is_loaded(
    refused: Command,
) -> None:
    for command in ("generate", "trace", "batch", "bench"):
        assert "top_k=null says nothing" in refused(command, "--set", "top_k=null")
        assert "top_k=-3: it must be" in refused(command, "--set", "top_k=-3")
        assert "num_beams=4 is not supported" in refused(command, "--set", "num_beams=4")


def test_a_misspelt_field_that_a_flag_says_names_the_flag(refused: Command) -> None:
    error = refused("bench", "--set", "temprature=1")
    assert "did you mean 'temperature'?" in error and "--temperature" in error


def test_a_field_alone_is_what_its_flag_is(generated: Command) -> None:
    asked = ("--temperature", 1, "--seed", 3)
    tokens = [generated(*asked, *more)["token_ids"] for more in (
        ("--top-k", 2), ("--set", "top_k=2"),
    )]  # fmt: skip
    assert tokens[0] == tokens[1] != generated(*asked)["token_ids"]


@pytest.mark.parametrize("name", [*SAID_BY, *REFUSED])
def test_the_settings_of_a_benchmark_say_each_thing_once(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        Settings(fields={name: 1})


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--set", "-o"])
def test_a_name_is_given_once(refused: Command, command: str, flag: str) -> None:
    if command == "bench paper":
        pytest.importorskip("matplotlib")
    name = "policy.depth" if flag == "-o" else "top_k"
    given = [flag, f"{name}=5", flag, f"{name}=9"]
    assert f"{flag} {name} is there twice" in refused(command, *given)
    inner = refused(command, flag, f'{name}={{"a": 1, "a": 2}}')
    assert "'a' is there twice" in inner


def test_how_a_chat_is_rendered_is_checked_before_the_model_is_loaded(refused: Command) -> None:
    assert set(OF_A_CHAT) == set(Template.__dataclass_fields__)
    for command in ("generate", "trace", "batch"):
        assert "tools must be a list" in refused(command, "--set", "tools=5")
        word = refused(command, "--set", "add_generation_prompt=no")
        assert "add_generation_prompt='no': give True or False" in word
