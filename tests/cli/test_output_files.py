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


PLACES = [
    *(["bench", "-m", "no/such/model", flag] for flag in (*FILES, "--log")),
    ["trace", "HELLO", "-m", "no/such/model", "--html"],
    ["vocabulary", "in.jsonl", "--size", "4", "-m", "no/such/model", "--out"],
]


@pytest.mark.parametrize("arguments", PLACES, ids=" ".join)
def test_a_place_that_can_be_no_file_is_refused_before_anything_is_loaded(
    run: Command, empty: Path, arguments: list[str]
) -> None:
    (empty / "folder").mkdir()
    (empty / "link").symlink_to(empty / "new.png")
    places = {
        "folder": "is a folder",
        "no/out.png": "no folder",
        "in.jsonl/out.png": "no folder",
        "x" * 300: "cannot be written",
    }
    for place, why in places.items():
        result = run(*arguments, place)
        assert result.exit_code == 2 and why in result.stderr, result.stderr
    before = sorted(empty.iterdir())
    for place in ("new.png", "link"):
        result = run(*arguments, place)
        assert result.exit_code == 2
    assert sorted(empty.iterdir()) == before and (empty / "link").is_symlink()


def test_results_that_can_be_no_file_in_a_folder_are_refused_before_anything_is_loaded(
    run: Command, empty: Path
) -> None:
    pytest.importorskip("matplotlib")
    (empty / "out" / "results.csv").mkdir(parents=True)
    result = run("bench", "paper", "-m", "no/such/model", "--out", "out")
    assert result.exit_code == 2 and "--out out/results.csv is a folder" in result.stderr
    assert [path.name for path in (empty / "out").iterdir()] == ["results.csv"]


def test_a_log_of_one_of_several_temperatures_can_be_no_folder(run: Command, empty: Path) -> None:
    (empty / "runs-t1.jsonl").mkdir()
    at = ["-m", "no/such/model", "--temperature", "0,1"]
    result = run("bench", *at, "--log", "runs.jsonl")
    assert result.exit_code == 2 and "--log runs-t1.jsonl is a folder" in result.stderr


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
