"""``specdec trace``: the page, the record and the table of one run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdec.tracing.record import Trace

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def trace(run: Command, folder: Path, head: Path) -> Command:
    """``specdec trace`` on the tiny target with its EAGLE head: 12 tokens."""

    def invoke(*args: Any, prompt: str = "HELLO", **kwargs: Any) -> Any:
        fixed = ["-m", folder, "--drafter", head, "--max-new-tokens", 12, "--temperature", 0]
        return run("trace", prompt, *fixed, *args, **kwargs)

    return invoke


def test_page_record_and_table_are_of_one_run(trace: Command, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    result = trace("--strategy", "eagle2", "--json", "--html", page)
    assert result.exit_code == 0, result.stderr
    record = Trace.model_validate_json(result.stdout)
    assert page.read_text(encoding="utf-8") == record.html()
    shown = trace("--strategy", "eagle2")
    assert shown.stdout.startswith(f"{record.text}\n")
    assert f"{len(record.steps)} steps" in shown.stdout


def test_the_text_is_the_one_that_generate_writes(trace: Command, generated: Command) -> None:
    arguments = ("--raw", "--temperature", 1, "--seed", 3, "--stop", "Q", "--set", "top_k=9")
    result = trace(*arguments, "--json", prompt="-", input="HELLO\n")
    record = json.loads(result.stdout)
    wanted = generated(*arguments, "--no-plain")
    assert record["text"] == wanted["text"]
    assert record["strategy"] == wanted["strategy"] == "auto"


def test_a_place_that_can_be_no_file_is_refused_before_anything_is_loaded(
    run: Command, tmp_path: Path
) -> None:
    places = {
        tmp_path: "is a folder",
        tmp_path / "no" / "out.html": "no folder",
        tmp_path / ("x" * 300): "cannot be written",
    }
    for place, why in places.items():
        result = run("trace", "Hi", "-m", "no/such/model", "--html", place)
        assert result.exit_code == 2 and why in result.stderr
    result = run("trace", "Hi", "-m", "no/such/model", "--html", tmp_path / "out.html")
    assert result.exit_code == 2 and "no/such/model" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_the_page_is_made_when_nobody_reads_the_text(
    folder: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    page = tmp_path / "out.html"
    command = [sys.executable, "-m", "specdec.cli", "trace", "HELLO", "-m", str(folder)]
    command += ["--strategy", "lookup", "--max-new-tokens", "12", "--html", str(page), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (1, "")
    assert page.read_text(encoding="utf-8").endswith("</html>")
