"""The command line, run in this process on a tiny model in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from typer.testing import CliRunner

from specdec.cli.app import app


@pytest.fixture(scope="session")
def folder(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny target with its tokenizer."""
    path = tiny.save_model(model, tmp_path_factory.mktemp("target"))
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def run() -> Callable[..., Any]:
    """Invoke the command line; the result has ``exit_code``, ``stdout`` and ``stderr``."""

    def invoke(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("env", {"COLUMNS": "200", "NO_COLOR": "1"})
        return CliRunner().invoke(app, [str(arg) for arg in args], **kwargs)

    return invoke


@pytest.fixture(scope="session")
def generate(run: Callable[..., Any], folder: Path, head: Path) -> Callable[..., Any]:
    """``specdec generate`` on the tiny target with its EAGLE head: 12 tokens, measured once."""

    def invoke(*args: Any, prompt: str = "HELLO", drafter: bool = True, **kwargs: Any) -> Any:
        parts = ["--drafter", head] if drafter else []
        fixed = ["-m", folder, *parts, "--max-new-tokens", 12, "--repeat", 1]
        return run("generate", prompt, *fixed, *args, **kwargs)

    return invoke


@pytest.fixture(scope="session")
def generated(generate: Callable[..., Any]) -> Callable[..., Any]:
    """The JSON object of ``specdec generate --json``."""

    def invoke(*args: Any, **kwargs: Any) -> Any:
        result = generate(*args, "--json", **kwargs)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return invoke


@pytest.fixture(scope="session")
def paper_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks as EAGLE has them, one of two turns."""
    root = tmp_path_factory.mktemp("data")
    rows = {
        "chat": [{"category": "writing", "turns": [a, b]} for a, b in ("AB", "CD", "EF", "GH")],
        "qa": [{"category": "qa", "turns": [text]} for text in ("HELLO", "ABCABC", "XYZ", "Q")],
    }
    for name, own in rows.items():
        (root / name).mkdir()
        lines = "\n".join(map(json.dumps, own))
        (root / name / "question.jsonl").write_text(lines, encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def paper_arguments(folder: Path, head: Path, paper_data: Path) -> list[str]:
    """Of a small run: two prompts a task, six tokens a turn."""
    fixed: list[Any] = ["-m", folder, "--data", paper_data, "--prompts", 2, "--max-new-tokens", 6]
    return [str(each) for each in [*fixed, "-o", f"drafter={head}"]]


@pytest.fixture(scope="session")
def paper(run: Callable[..., Any], paper_arguments: list[str]) -> Callable[..., Any]:
    """``specdec bench paper`` on the tiny target with its EAGLE head."""
    return lambda out, *more: run("bench", "paper", "--out", out, *paper_arguments, *more)


@pytest.fixture(scope="session")
def paper_out(paper: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of every method at two temperatures."""
    folder = tmp_path_factory.mktemp("paper") / "new" / "results"
    result = paper(folder)
    assert result.exit_code == 0, result.stderr
    return folder
