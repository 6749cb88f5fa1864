"""The built-in prompts: all fit the embedded model, and the paper's comparison runs on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from specdec import Engine, bench
from specdec.bench.built_in_prompts import MIXED, TASKS
from specdec.bench.chat_turns import longest_text
from specdec.cli.app import app

NEW = 128  # of an answer, as in the paper's comparison


@pytest.fixture(scope="module")
def embedded() -> Engine:
    """The embedded model, whose context is the shortest that they are meant for."""
    return Engine("chat-7m", strategy="plain")


def test_every_prompt_and_all_its_answers_fit_the_embedded_model(embedded: Engine) -> None:
    sets = [MIXED, *TASKS]
    found = bench.encode_sets(sets, embedded, max_new_tokens=NEW)
    assert len(found) == sum(len(one.texts) for one in sets)
    assert longest_text(found, embedded, NEW) < embedded.target.context_limit


def test_tasks_are_small_sets_of_different_texts_one_of_them_with_turns() -> None:
    texts = [text for one in TASKS for text in one.texts]
    assert len({*texts}) == len(texts) and len({one.name for one in TASKS}) == 6
    assert all(2 <= len(one.texts) <= 4 for one in TASKS)
    assert [one.name for one in TASKS if one.later] == ["conversation"]
    assert all(len(one.later) == len(one.texts) for one in TASKS if one.later)


def test_the_papers_comparison_needs_no_data(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    few = ["--prompts", "1", "--max-new-tokens", "2", "--temperature", "0", "--no-prompt-lookup"]
    command = ["bench", "paper", "--out", str(tmp_path), "--strategies", "plain", *few]
    done = CliRunner().invoke(app, [*command, "--no-transformers"])
    assert done.exit_code == 0, done.output
    (report,) = json.loads((tmp_path / "results.json").read_text())["reports"]
    assert report["prompts"]["sets"] == {one.name: 1 for one in TASKS}
    assert report["prompts"]["turns"] == {"min": 1, "max": 2}
    assert all(row["identical"] for row in report["results"])
