"""``specdec batch``: a file in, a file out, and a summary."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import blocks

from specdec.jobs import job

Command = Callable[..., Any]
ROWS = [
    {"id": "a", "prompt": "HELLO", "kind": "x"},
    {"id": "b", "prompt": "HI", "temperature": 1.0, "max_new_tokens": 3, "kind": "y"},
    {"id": "c", "prompt": ""},
]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return path


@pytest.fixture
def batch(run: Command, folder: Path, head: Path, prompts: Path) -> Command:
    """``specdec batch`` on the tiny target with its EAGLE head."""

    def invoke(*args: Any, **kwargs: Any) -> Any:
        fixed = [prompts, prompts.with_name("out.jsonl"), "-m", folder, "--drafter", head]
        return run("batch", *fixed, "--max-new-tokens", 6, "--keep", "kind", *args, **kwargs)

    return invoke


def answers(prompts: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in prompts.with_name("out.jsonl").read_text().splitlines()]


def test_it_answers_a_file_and_tells_what_it_did(batch: Command, prompts: Path) -> None:
    done = batch("--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["errors"], summary["resumed"]) == (3, 1, 0)
    assert summary["new_tokens"] == 9 and summary["tau"] > 1 and summary["lossless"]
    one, two, three = answers(prompts)
    assert (one["id"], one["kind"], one["new_tokens"]) == ("a", "x", 6)
    assert (two["id"], two["kind"], two["new_tokens"]) == ("b", "y", 3)
    assert "the prompt is empty" in three["error"]["message"] and "text" not in three
    again = batch("--json")
    assert again.exit_code == 0 and json.loads(again.stdout) == summary


@pytest.mark.parametrize(
    ("names", "more", "says"),
    [
        (("typo.jsonl", "out.jsonl"), (), "there is no file"),
        (("in.jsonl", "in.jsonl"), (), "is the file of prompts"),
        (("in.jsonl", "notes.txt"), (), "is there, and not from a job"),
        (("in.jsonl", "out.jsonl"), ("--keep", "text"), "an answer has a field 'text' of its own"),
    ],
    ids=["no file", "the same file", "a file of another's", "a field of the answer's own"],
)
def test_files_and_options_are_checked_before_the_model_is_loaded(
    run: Command, prompts: Path, names: tuple[str, str], more: tuple[str, ...], says: str
) -> None:
    prompts.with_name("notes.txt").write_text("mine")
    files = [prompts.with_name(name) for name in names]
    done = run("batch", *files, "-m", prompts.with_name("no-model"), *more)
    assert done.exit_code == 2 and says in " ".join(done.stderr.split())


def test_its_table_and_its_bar_are_apart(batch: Command, prompts: Path) -> None:
    done = batch("-s", "eagle2")
    assert done.exit_code == 0, done.stderr
    assert "out.jsonl" in done.stdout and "tau" in done.stdout and "tokens/s" in done.stdout
    assert "rows" in done.stderr and "100%" in done.stderr
    assert batch("-s", "eagle2", "--quiet").stderr == ""


def test_ctrl_c_says_that_the_same_command_goes_on(
    batch: Command, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(job, "write_atomically", lambda *given: signal.raise_signal(signal.SIGINT))
        stopped = batch()
    assert stopped.exit_code == 130 and "the same command goes on from here" in stopped.stderr
    done = batch("--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["resumed"] == 3


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """The embedded model with its EAGLE head, in processes of their own."""
    prompts, killed, whole = (tmp_path / f"{name}.jsonl" for name in ("in", "killed", "whole"))
    rows = [{"prompt": f"{number} birds", "temperature": number % 2} for number in range(24)]
    prompts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def command(out: Path) -> list[str]:
        program = [sys.executable, "-m", "specdec.cli", "batch", str(prompts), str(out), "--json"]
        how = ["-s", "eagle2", "--dtype", "float64", "--device", "cpu", "--threads", "1"]
        return [*program, *how, "--max-new-tokens", "24", "--batch-size", "2"]

    def summary(out: Path) -> dict[str, Any]:
        done = subprocess.run(command(out), capture_output=True, text=True, check=True)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    log = tmp_path / "killed.jsonl.job"
    process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL)
    try:
        while not log.exists() or log.read_bytes().count(b"\n") < 3:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not killed.exists()
    assert 0 < summary(killed)["resumed"] < len(rows)
    assert summary(whole)["resumed"] == 0
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", -1], "temperature=-1"),
        (["--set", "temprature=1"], "unknown field in --set 'temprature'"),
        (["--keep", "text"], "an answer has a field 'text'"),
        (["-o", "policy.nothing=1"], "nothing"),
        (["--plugin", "none.py"], "give the path of a Python file that exists"),
    ],
    ids=str,
)
def test_what_is_wrong_for_all_rows_is_told_before_any(
    batch: Command, prompts: Path, flags: list[Any], message: str
) -> None:
    done = batch(*flags, "--json")
    assert done.exit_code == 2 and message in json.loads(done.stdout)["error"]["message"]
    assert not prompts.with_name("out.jsonl").exists()


def test_an_observer_in_a_file_sees_the_steps(batch: Command, tmp_path: Path) -> None:
    plugin = tmp_path / "watch.py"
    plugin.write_text(
        "from pathlib import Path\nfrom specdec import hookimpl\n"
        "@hookimpl\ndef specdec_step(step, generation):\n"
        f"    Path({str(tmp_path / 'seen')!r}).write_text(generation.model)\n"
    )
    assert batch("--plugin", plugin).exit_code == 0
    assert (tmp_path / "seen").read_text()


def test_debug_shows_the_log(batch: Command) -> None:
    done = batch("--debug", "--json")
    assert "is loaded" in done.stderr and "2 rows were" not in done.stdout
    assert json.loads(done.stdout)["rows"] == 3


def test_the_commands_of_the_page_answer_its_rows(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (rows,), (command,), (shown,) = (
        blocks("docs/batch-jobs.md", kind) for kind in ("jsonl", "console", "json")
    )
    Path("in.jsonl").write_text(rows)
    done = run(*shlex.split(command)[1:])
    assert done.exit_code == 0, done.stderr
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    wanted = [json.loads(line) for line in shown.splitlines()]
    assert [list(answer) for answer in found] == [list(answer) for answer in wanted]
    message = wanted[2]["error"]["message"].removesuffix("...")
    assert found[2]["error"]["message"].startswith(message)
    for name in ("id", "prompt_tokens"):
        assert [a.get(name) for a in found] == [a.get(name) for a in wanted], name
    assert found[0]["new_tokens"] == wanted[0]["new_tokens"] == 30


def test_help_teaches_by_example(run: Command) -> None:
    said = run("batch", "--help").stdout
    for word in ('{"id": "a"', "specdec batch in.jsonl out.jsonl", "the same command goes on"):
        assert word in said
