"""Heads in the layouts that vLLM loads: its greedy text is specdec's.

Runs where vLLM is installed beside specdec, or in the environment of SPECDEC_VLLM_PYTHON.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from specdec import Engine
from specdec.bench.peers import workers
from specdec.bench.peers.protocol import Process
from specdec.cli.app import app
from specdec.plugin.embedded_model import EMBEDDED
from specdec_plugins.eagle.saving import save_head
from specdec_plugins.eagle.testing import random_eagle3_head

PYTHON = os.environ.get("SPECDEC_VLLM_PYTHON") or (
    sys.executable if importlib.util.find_spec("vllm") else None
)
WORKER = workers.HERE / "worker_vllm.py"
TARGET, HEAD = EMBEDDED.model, EMBEDDED.drafters["eagle"]
PROMPTS = ("Once upon a time", "The fox ran to")
NEW, DEPTH = 24, 3
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="vLLM is not installed, see docs/serving.md"),
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(strategy="chain", dtype="float32")


@contextmanager
def serving(mode: dict[str, Any], log: Path, engine: Engine) -> Iterator[Process]:
    """A process that serves the embedded model with a head."""
    assert PYTHON is not None
    process = Process(PYTHON, WORKER, 1, log)
    job = {
        "target": str(Path(TARGET).resolve()),
        "dtype": "float32",
        "threads": 1,
        "context": 64,
        "eager": True,
        "eos": [engine.generation_config.eos_token_id],
        "modes": {"served": mode},
    }
    try:
        process.load(job)
        yield process
    finally:
        process.close()


def convert(head: Path, out: Path, layout: str) -> Path:
    arguments = ["convert", str(head), str(out), "--to", layout, "--model", TARGET]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("kind", ["none", "eagle", "eagle3", "eagle3 of speculators"])
def test_greedy_text_is_that_of_specdec(kind: str, engine: Engine, tmp_path: Path) -> None:
    mode: dict[str, Any] = {}
    if kind == "eagle":
        mode = {"head": HEAD, "depth": DEPTH}
    elif kind.startswith("eagle3"):
        torch.manual_seed(0)
        head = random_eagle3_head(engine.target.model, aux_layers=(2, 4, 5)).float()
        layers = engine.target.layers
        save_head(head, tmp_path / "official", "official", target_layers=layers)
        layout = "speculators" if "of" in kind else "specforge"
        folder = convert(tmp_path / "official", tmp_path / "head", layout)
        mode = {"head": str(folder), "depth": DEPTH, "method": "eagle3"}
    steps = tokens = 0
    with serving(mode, tmp_path / "log", engine) as process:
        for prompt in PROMPTS:
            ids = engine.tokenizer(prompt)["input_ids"]
            own = engine.generate(ids, max_new_tokens=NEW, temperature=0)
            served = process.decode("served", ids, NEW)
            assert served.tokens == own.token_ids
            steps, tokens = steps + served.steps, tokens + len(served.tokens)
    assert tokens > NEW
    if kind == "eagle":  # a head that has learned: some draft tokens are accepted
        assert steps < tokens
