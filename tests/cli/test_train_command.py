"""``specdec train``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdec.plugin.registry import Registry

Command = Callable[..., Any]
SHORT = [
    *("--steps", 4, "--length", 32, "--batch-tokens", 64),
    *("--set", "evaluations=2", "--set", "tau_every=2", "--set", "tau_tokens=4"),
    *("--set", "precision=float32"),
]


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    rows = [{"prompt": f"{a}{b}C", "response": f"{b}{a}DEF"} for a in "ABCDEF" for b in "GHIJ"]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_head_comes_out_that_generate_takes(
    run: Command, folder: Path, chats: Path, tmp_path: Path
) -> None:
    out = tmp_path / "head"
    done = run("train", "eagle", "-m", folder, "--data", chats, "--out", out, *SHORT)
    assert done.exit_code == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "held-out agreement" in told and f"use it with --strategy eagle3 --drafter {out}" in told
    assert "24 documents" in done.stderr and "step 4: held-out" in done.stderr
    text = run(
        "generate", "AGC", "-m", folder, "-s", "eagle3", "--drafter", out, "--max-new-tokens", 8,
        "--repeat", 1, "--json",
    )  # fmt: skip
    assert json.loads(text.stdout)["identical"] is True, text.stderr


def test_json_is_the_summary_and_nothing_else(
    run: Command, folder: Path, chats: Path, tmp_path: Path
) -> None:
    out = tmp_path / "head"
    arguments = ["train", "eagle", "--data", chats, chats, "-m", folder, "--out", out, "--json"]
    done = run(*arguments, *SHORT, "--recipe", "eagle1", "-o", "noise=0.1", "--seed", 3)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ended"] == "finished" and found["settings"]["seed"] == 3
    assert found["options"]["recipe"] == "eagle1" and found["options"]["noise"] == 0.1
    assert found["documents"]["left_out"] == {"the same as another": 24}
    assert found == json.loads((out / "training.json").read_text())
    assert done.stderr == ""


def test_answers_of_the_model_are_asked_for(
    run: Command, folder: Path, chats: Path, tmp_path: Path
) -> None:
    own = ["--regenerate", "--temperatures", "0,1", "--new-tokens", 6, "--answers", 12]
    base = ["train", "draft-model", "-m", folder, "--data", chats, "--out", tmp_path / "draft"]
    done = run(*base, *SHORT, *own, "-o", "hidden_size=16", "--work", tmp_path / "work")
    assert done.exit_code == 0, done.stderr
    assert "answers: 12, at most 72 tokens" in done.stderr
    (first,) = (tmp_path / "work").glob("answers-*")
    assert len(list(first.glob("*.jsonl"))) == 2, "one batch for each temperature"
    sizes = ["--answer-batch", 3, "--answer-batch-tokens", 20, "--longest-prompt", 9]
    done = run(*base, *SHORT, *own, *sizes, "-o", "hidden_size=16", "--out", tmp_path / "more")
    assert done.exit_code == 0, done.stderr
    (manifest,) = (tmp_path / "more.work").glob("answers-*/manifest.json")
    options = json.loads(manifest.read_text())["options"]
    found = [options[name] for name in ("batch", "max_batch_tokens", "longest_prompt")]
    assert found == [3, 20, 9]
    assert len(list(manifest.parent.glob("*.jsonl"))) > 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eagle"], "there are no data"),
        (["eagle", "--data", "nowhere.jsonl"], "there is no file or folder"),
        (["eagel", "--data", "CHATS"], "did you mean 'eagle'"),
        (["eagle", "--data", "CHATS", "--answers", 3], "give --regenerate as well"),
        (["eagle", "--data", "CHATS", "--answer-batch", 3], "give --regenerate as well"),
        (["eagle", "--data", "CHATS", "--regenerate", "--temperatures", "x"], "give a number"),
        (["eagle", "--data", "CHATS", "--set", "rates=3"], "unknown setting 'rates'"),
        (["eagle", "--data", "CHATS", "-o", "size=3"], "unknown option of the trainer"),
        (["eagle", "--data", "CHATS", "--set", "data=x"], "unknown setting 'data'"),
        (["eagle", "--data", "CHATS", "--steps", 3, "--set", "steps=4"], "--steps and by --set"),
        (["eagle", "--data", "CHATS", "--recipe", "eagle1", "-o", "recipe=eagle1"], "and by -o"),
        (["eagle", "--data", "CHATS", "--work", "CHATS"], "is a file: give a folder to work in"),
        (["eagle", "--data", "CHATS", "--minutes", 1, "--epochs", 2], "were both given"),
    ],
)
def test_mistakes_are_one_line(
    run: Command, folder: Path, chats: Path, tmp_path: Path, arguments: list[Any], says: str
) -> None:
    given = [chats if each == "CHATS" else each for each in arguments]
    done = run("train", *given, "-m", folder, "--out", tmp_path / "head")
    assert done.exit_code == 2 and says in done.stderr and "Traceback" not in done.stderr
    found = run("train", *given, "-m", folder, "--out", tmp_path / "head", "--json")
    assert says in json.loads(found.stdout)["error"]["message"]


def test_there_is_no_default_for_the_folder(run: Command, folder: Path, chats: Path) -> None:
    done = run("train", "eagle", "--data", chats, "-m", folder)
    assert done.exit_code == 2 and "give --out FOLDER" in done.stderr


def test_options_of_trainers_are_shown(run: Command) -> None:
    rows = json.loads(run("options", "draft-model", "--json").stdout)["options"]
    assert {row["role"] for row in rows} == {"trainer"}
    assert {row["role"] for row in json.loads(run("options", "eagle", "--json").stdout)["options"]}
    assert "unrolled_steps" in run("options", "eagle").stdout


@pytest.mark.parametrize("name", ["medusa", "hydra"])
def test_options_of_a_trainer_called_like_a_strategy_are_shown_with_its_parts(
    run: Command, name: str
) -> None:
    rows = json.loads(run("options", name, "--json").stdout)["options"]
    assert {"drafter", "policy", "trainer"} <= {row["role"] for row in rows}
    assert f"specdec train {name} ... -o option=value" in run("options", name).stdout


def test_the_help_names_every_trainer(run: Command) -> None:
    told = run("train", "--help").stdout
    assert all(name in told for name in Registry.load().trainers)


def test_ctrl_c_says_how_to_go_on(folder: Path, chats: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "specdec.cli", "train", "eagle", "-m", folder, "--data", chats]
    more = ["--out", tmp_path / "head", "--minutes", 1, "--length", 32, "--set", "tau_every=0"]
    more += ["--set", "save_every=0.0001"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*map(str, [*command, *more])], stderr=subprocess.PIPE, text=True, env=env
    )
    for _ in range(300):
        if list(tmp_path.glob("head.work/run-*/checkpoint.pt")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "the same command goes on from here" in told and "Traceback" not in told
    assert not (tmp_path / "head").exists()
