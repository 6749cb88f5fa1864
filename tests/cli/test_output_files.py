"""Names of files that commands write: none is written twice, and ``-`` names no file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]

FILES = ["--json", "--csv", "--markdown", "--plot"]
DASHES = [
    *(["bench", "-m", "no/such/model", flag, "-"] for flag in (*FILES[1:], "--log")),
    ["bench", "paper", "-m", "no/such/model", "--out", "-"],
    ["trace", "HELLO", "-m", "no/such/model", "--html", "-"],
    ["batch", "in.jsonl", "-", "-m", "no/such/model"],
    ["train", "eagle", "--data", "in.jsonl", "--out", "-"],
    ["train", "eagle", "--data", "in.jsonl", "--out", "head", "--work", "-"],
    ["convert", "head", "-", "--to", "official"],
    ["vocabulary", "in.jsonl", "--size", "4", "--out", "-", "-m", "no/such/model"],
]


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in, with a file of prompts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "HELLO"}) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("arguments", DASHES, ids=" ".join)
def test_what_is_not_written_to_standard_output_cannot_be_called_dash(
    run: Command, empty: Path, arguments: list[str]
) -> None:
    if "paper" in arguments:
        pytest.importorskip("matplotlib")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert " -: this is not written to standard output; give a name" in result.stderr
    assert [path.name for path in empty.iterdir()] == ["in.jsonl"]


def test_no_two_outputs_of_a_benchmark_are_one_file(run: Command, empty: Path) -> None:
    pytest.importorskip("matplotlib")
    for one, two in itertools.combinations(FILES, 2):
        for name in ("out.png", empty / "out.png", "../" + empty.name + "/out.png"):
            result = run("bench", "-m", "no/such/model", one, "out.png", two, name)
            assert result.exit_code == 2 and f"{one} and {two} are the same file" in result.stderr
    result = run("bench", "-m", "no/such/model", "--json", "a", "--csv", "b", "--markdown", "c")
    assert "no/such/model" in result.stderr


def test_no_output_is_a_log_or_the_text_that_is_read(run: Command, empty: Path) -> None:
    at = ["-m", "no/such/model", "--log", "runs.jsonl", "--temperature", "0,1", "--batch-size", 2]
    result = run("bench", *at, "--json", "runs-t1-b2.jsonl")
    assert result.exit_code == 2 and "--json and --log are the same file" in result.stderr
    before = (empty / "in.jsonl").read_bytes()
    for command in (
        ["bench", "-m", "no/such/model", "--data", "in.jsonl", "--json", "in.jsonl"],
        ["vocabulary", "in.jsonl", "--size", "4", "--out", "in.jsonl"],
    ):
        result = run(*command)
        assert result.exit_code == 2 and "same file" in result.stderr
    assert (empty / "in.jsonl").read_bytes() == before
