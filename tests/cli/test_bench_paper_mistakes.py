"""``specdec bench paper``: mistakes are one message; what is left out is told before the runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdec.bench.built_in_prompts import TASKS

pytest.importorskip("matplotlib")

Command = Callable[..., Any]


MISTAKES = [
    (["--strategies", "lookup", "--ablations"], "--ablations need one of the strategies"),
    (["--strategies", "eagle3"], "eagle3"),
    (["--strategies", "eagel2"], "did you mean 'eagle2'?"),
    (["--temperature", "0,x"], "give a number, or several with commas"),
    (["--temperature", "0,0"], "each once"),
    (["--temperature", "0,-1"], "temperature=-1.0"),
    (["--batch-size", "2,4", "--prompt-lookup"], "one row at a time"),
    (["--batch-size", "1,x"], "give a whole number, or several with commas"),
    (["--batch-size", "2,2"], "batch sizes 2, 2: give at least one, and each once"),
    (["--batch-size", "0"], "batch_size=0"),
    (["--peers", "eagle.chekout=x"], "did you mean 'eagle.checkout'?"),
    (["--peers", "eagle.checkout=nowhere"], "there is no eagle/model/ea_model.py in it"),
    (["--peers", "eagle.python=python"], "needs --peers eagle.checkout=CHECKOUT too"),
    (["--peers", "vllm.python=no-python"], "there is no such interpreter"),
    (["--peers", "vllm.python=python", "--set", "top_k=3"], "leave out --set top_k"),
    (["--peers", "vllm.python=python", "--batch-size", "2,4"], "one row at a time"),
    (["--data", "nowhere"], "there is no file or folder nowhere"),
    (["-o", "eagle2.policy.budgt=3"], "did you mean 'budget'?"),
    (["-o", "lookup.drafter.min_probability=7"], "min_probability"),
    (["-o", "eagle2.policy.budget=0"], "budget"),
    (["-o", "policy.budget=0"], "budget"),
    (["-o", "eagle2.drafter=/typo"], "/typo"),
    (["-o", "drafter=/typo"], "-o drafter is there twice"),
    (["-o", "eagle3.drafter.dtype=float64"], "'eagle3' needs"),
]


@pytest.mark.parametrize(("more", "message"), MISTAKES)
def test_mistake_is_one_message_and_exit_code_2(
    paper: Command, tmp_path: Path, more: list[str], message: str
) -> None:
    result = paper(tmp_path / "out", *more)
    assert (result.exit_code, result.stdout) == (2, "")
    *before, last = result.stderr.splitlines()
    assert last.startswith("error: ") and message in last
    assert all(line.startswith("left out: ") for line in before)


def test_what_is_left_out_is_told_before_the_first_run(
    paper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("specdec.cli.bench_paper.measure", refuse)
    result = paper(tmp_path)
    assert result.exit_code == 130 and result.stdout == ""
    assert re.search("^left out: eagle3: the drafter 'eagle3' needs", result.stderr, re.MULTILINE)


def test_larger_batches_do_without_prompt_lookup_unless_it_is_asked_for(
    paper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("specdec.cli.bench_paper.measure", refuse)
    few = ["--strategies", "eagle2", "--batch-size", 2]
    told = "left out: transformers prompt lookup in batches: it decodes one row at a time"
    for more, reasons in (([], [told]), (["--no-prompt-lookup"], [])):
        result = paper(tmp_path, *few, *more)
        assert result.exit_code == 130
        assert [line for line in result.stderr.splitlines() if "left out" in line] == reasons


def test_options_before_the_subcommand_are_refused(run: Command, tmp_path: Path) -> None:
    result = run("bench", "--prompts", 3, "paper", "--out", tmp_path)
    assert result.exit_code == 2
    assert "--prompts given before 'paper'" in result.stderr


def test_help_says_where_the_six_tasks_come_from(run: Command) -> None:
    result = run("bench", "paper", "--help")
    assert result.exit_code == 0
    assert "eagle/data" in result.stdout and "question.jsonl" in result.stdout


def test_help_names_the_built_in_tasks(run: Command) -> None:
    result = run("bench", "paper", "--help")
    (said,) = re.findall(r"built-in tasks: ([a-z,\s│]+)", result.stdout)
    assert re.findall(r"[a-z]+", said) == [task.name for task in TASKS]
