"""Mistakes end in one message on stderr and exit code 2; help and pipes stay quick and quiet."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

MISTAKES = [
    (["--strategy", "eagel2"], "unknown strategy 'eagel2': did you mean 'eagle2'?"),
    (["--compare", "chain,plian"], "unknown strategy 'plian': did you mean 'plain'?"),
    (["--policy", "egale2"], "unknown policy 'egale2': did you mean 'eagle2'?"),
    (["--compare", "chain,chain"], "'chain' is there twice: name each strategy once"),
    (["--compare", "chain,eagle2", "--strategy", "nosuch"], "--strategy nosuch says another"),
    (["--compare", "chain,eagle2", "-s", "chain"], "put it among those of --compare"),
    (["--no-plain", "--repeat", "5"], "leave out --repeat, or --no-plain"),
    (["-o", "policy.bugdet=3"], "'bugdet': did you mean 'budget'?"),
    (["-o", "polcy.budget=3"], "unknown role 'polcy': did you mean 'policy'?"),
    (["-o", "budget=3"], "write role.option=value"),
    (["-o", "policy.budget"], "write name=value"),
    (["-o", "policy.budget=none"], "policy.budget='none'"),
    (["-o", "chain.policy.depth=3"], "'chain' does not run here"),
    (["--set", "temprature=1"], "did you mean 'temperature'?"),
    (["--temperature", "-1"], "temperature=-1.0: it must be a number, at least 0"),
    (["--dtype", "float23"], "did you mean 'float32'?"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistake_is_one_message_and_exit_code_2(
    generate: Command, arguments: list[str], message: str
) -> None:
    result = generate(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_with_json_is_a_json_object_on_stdout(
    generate: Command, arguments: list[str], message: str
) -> None:
    result = generate(*arguments, "--json")
    assert result.exit_code == 2
    assert message in json.loads(result.stdout)["error"]["message"]
    assert result.stderr == ""


@pytest.mark.parametrize("threads", [100_000, 10**9, 10**20])
def test_more_threads_than_a_machine_would_start_are_refused_with_the_flag(
    generate: Command, threads: int
) -> None:
    result = generate("--threads", str(threads), "--json")
    assert result.exit_code == 2
    message = json.loads(result.stdout)["error"]["message"]
    assert f"'--threads': {threads}: this machine has" in message and "give at most" in message


USAGE = [
    ["generate", "hi", "--no-such-flag", "--json"],
    ["generate", "--json"],
    ["generate", "hi", "--repeat", "none", "--json"],
    ["check", "--json"],
    ["strategies", "nonsense", "--json"],
    ["options", "nonsense", "--json"],
    ["bench", "--json", "-", "--strategies", "nonsense"],
    ["bench", "--json", "-", "--no-such-flag"],
    ["no-such-command", "--json"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_every_command_reports_mistakes_as_json_where_asked(
    run: Command, arguments: list[str]
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert set(json.loads(result.stdout)["error"]) == {"type", "message"}
    assert result.stderr == ""


def test_a_file_of_json_leaves_errors_on_stderr(run: Command, tmp_path: Path) -> None:
    result = run("bench", "--json", tmp_path / "out.json", "--strategies", "nonsense")
    assert result.exit_code == 2
    assert result.stdout == "" and result.stderr.startswith("error: ")


def test_unknown_model_names_the_nearest(run: Command) -> None:
    result = run("generate", "hi", "-m", "chat-8m")
    assert result.exit_code == 2
    assert "did you mean 'chat-7m'?" in result.stderr


def test_plain_takes_no_part_options(generate: Command) -> None:
    result = generate("--strategy", "plain", "-o", "policy.budget=3", drafter=False)
    assert result.exit_code == 2
    assert "the strategy 'plain' has no policy" in result.stderr


def test_debug_shows_the_traceback(generate: Command) -> None:
    result = generate("--strategy", "eagel2", "--debug")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_bug_is_one_line_too(generate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from specdec.cli import runs

    def broken(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runs, "warm_up", broken)
    result = generate()
    assert result.exit_code == 1
    assert result.stderr == "error: unexpected RuntimeError: out of memory (--debug shows where)\n"


def test_an_interrupt_with_json_is_told(generate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from specdec.cli import runs

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "warm_up", interrupted)
    result = generate("--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["error"]["type"] == "KeyboardInterrupt"


def test_usage_error_exits_with_2(run: Command) -> None:
    assert run("generate").exit_code == 2
    assert run("generate", "hi", "--no-such-flag").exit_code == 2


@pytest.mark.parametrize("command", [[], ["generate"], ["strategies"], ["options"], ["plugins"]])
def test_help_has_a_sentence_and_examples(run: Command, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: specdec" in result.stdout or "Usage: root" in result.stdout
    if command:
        assert "Examples" in result.stdout
        assert f"specdec {command[0]}" in result.stdout


COMMANDS = ["generate", "bench", "check", "strategies", "options", "plugins", "vocabulary"]
COMMANDS += ["inspect", "convert"]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
@pytest.mark.parametrize("width", [60, 80, 110])
def test_help_is_wrapped_once(run: Command, command: list[str], width: int) -> None:
    """A line ends where the next word would not fit, and nowhere else within a paragraph."""
    shown = run(*command, "--help", env={"COLUMNS": str(width), "NO_COLOR": "1"}).stdout
    prose = shown[: shown.index("\u256d")]
    lines = [line.strip() for line in prose.splitlines()]
    for line, following in itertools.pairwise(lines):
        if line and following:
            assert len(line) + 1 + len(following.split()[0]) > width - 2, line


def test_version_is_the_packages(run: Command) -> None:
    import specdec

    assert run("--version").stdout == f"specdec {specdec.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_imports_no_torch(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from specdec.cli import main\n"
        f"sys.argv = ['specdec', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'pluggy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_broken_pipe_is_quiet(folder: Path) -> None:
    command = [sys.executable, "-m", "specdec.cli", "generate", "HELLO", "-m", str(folder)]
    process = subprocess.Popen(
        [*command, "--strategy", "plain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
