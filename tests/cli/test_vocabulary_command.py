"""``specdec vocabulary``: frequent tokens in a file that drafters take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from specdec import Engine

Command = Callable[..., Any]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("AAAABBBCCD")
    return path


def test_the_most_frequent_tokens_come_first_and_the_end_of_a_text_is_one(
    run: Command, folder: Path, text: Path, tokenizer: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    done = run("vocabulary", text, text, "-m", folder, "--size", 3, "--out", out)
    assert done.exit_code == 0, done.stderr
    assert json.loads(out.read_text()) == tokenizer.convert_tokens_to_ids(["<eos>", "A", "B"])
    assert f"3 tokens in {out}" in done.stdout
    run("vocabulary", text, "-m", folder, "--size", 50, "--out", out)
    assert len(json.loads(out.read_text())) == 5, "no token that the text has not"


def test_a_drafter_takes_the_file(
    run: Command, folder: Path, text: Path, plain: Engine, head: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    run("vocabulary", text, "-m", folder, "--size", 4, "--out", out)
    options = {"drafter": {"vocabulary": str(out)}}
    own = plain.with_strategy("eagle2", drafter=head, options=options)
    drafted = {
        token
        for step in tiny.steps(own, tiny.PROMPTS, max_new_tokens=12)
        for token in step.tree.tokens[:, 1:][step.tree.valid[:, 1:]].tolist()
    }
    assert drafted and drafted <= set(json.loads(out.read_text()))


def test_what_cannot_be_counted_or_written_is_an_error(
    run: Command, folder: Path, text: Path, tmp_path: Path
) -> None:
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("")
    binary.write_bytes(b"\xff\xfe\x00")
    for texts, out, says in (
        ([empty], tmp_path / "out.json", "no token to count"),
        ([tmp_path / "nowhere.txt"], tmp_path / "out.json", "cannot be read"),
        ([binary], tmp_path / "out.json", "cannot be read"),
        ([text], tmp_path / "nowhere" / "out.json", "there is no folder"),
    ):
        done = run("vocabulary", *texts, "-m", folder, "--size", 3, "--out", out)
        assert done.exit_code != 0
        assert says in done.stderr
        assert not out.exists()
    assert run("vocabulary", text, "-m", folder, "-n", 0, "--out", tmp_path / "x").exit_code != 0
