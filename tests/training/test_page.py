"""The commands of docs/training.md run as they stand, only smaller."""

from __future__ import annotations

import json
import random
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from pages import blocks
from test_docs import SNIPPETS, pasted
from typer.testing import CliRunner

from specdec import Engine
from specdec.cli.app import app
from specdec.training.pipeline import train

PAGE = "docs/training.md"
SMALL = "--set evaluations=1 --set tau_tokens=4 --length 48 --batch-tokens 192 --new-tokens 8"
TRAIN = [line for line in blocks(PAGE, "sh") if line.startswith("specdec train")]


def smaller(command: str) -> list[str]:
    """The arguments of a command, for a run of two steps."""
    command = re.sub(r"--(minutes|epochs) \d+", "--steps 2", command)
    more = SMALL if "--regenerate" in command else SMALL.partition(" --new-tokens")[0]
    return shlex.split(command)[1:] + (more.split() if " train " in command else [])


def expanded(arguments: list[str]) -> list[str]:
    """As a shell hands them over."""
    found: list[str] = []
    for each in arguments:
        found += [str(path) for path in sorted(Path().glob(each))] if "*" in each else [each]
    return found


@pytest.mark.filterwarnings("ignore:the head predicts")
def test_every_command_runs(
    target: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target.save_pretrained("my-model")
    tokenizer.save_pretrained("my-model")
    draw = random.Random(0)
    rows = [{"prompt": "".join(draw.choices("ABCDEF", k=5)), "response": "GHI"} for _ in range(40)]
    Path("chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ran = []
    for block in blocks(PAGE, "sh"):
        if block.startswith("# needs"):
            continue
        arguments = expanded(smaller(block.strip()))
        if arguments[0] == "generate":
            arguments[1:2] = ["ABC", "--max-new-tokens", "4", "--repeat", "1"]
        done = CliRunner().invoke(app, arguments, env={"NO_COLOR": "1"})
        assert done.exit_code == 0, (block, done.output, done.exception)
        ran.append(arguments[0])
    assert ran.count("train") >= 5 and ran.count("generate") >= 3
    assert len(TRAIN) == ran.count("train")


def test_the_trainer_of_the_hooks_page_learns(
    target: Any, tokenizer: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,) = [each for each in SNIPPETS if "def specdec_trainers" in each.code]
    plugin = pasted(snippet.code, str(snippet), monkeypatch)
    summary = train(
        target,
        tokenizer=tokenizer,
        data=data,
        out=tmp_path / "head",
        trainer="next-but-one",
        plugins=[plugin],
        steps=60,
        length=48,
        batch_tokens=192,
        evaluations=3,
        precision="float32",
    )
    first, *_, last = [entry["agreement"] for entry in summary.history if "agreement" in entry]
    assert last[0] > first[0] and summary.tau is None
    assert Engine(target, strategy="plain", tokenizer=tokenizer)
