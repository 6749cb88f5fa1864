"""A small target with a chat template, its own text as data, and hidden states of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from training_process import SHORT

from specdec import Engine
from specdec.training.documents import Documents, make_documents
from specdec.training.features import Features
from specdec.training.pipeline import train
from specdec.training.rows import read_rows


@pytest.fixture(scope="session")
def target() -> Any:
    """A Llama of four layers in float32, so that an EAGLE-3 head has three to read."""
    return tiny.make_model(tiny.llama_config(num_hidden_layers=4), dtype=torch.float32)


@pytest.fixture(scope="session")
def decoding(target: Any, tokenizer: Any) -> Engine:
    """Plain decoding of it."""
    return Engine(target, strategy="plain", tokenizer=tokenizer)


@pytest.fixture(scope="session")
def data(decoding: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the target's own answers."""
    draw = random.Random(0)
    prompts = [[draw.randrange(4, 60) for _ in range(draw.randrange(3, 9))] for _ in range(60)]
    results = decoding.generate(prompts, max_new_tokens=24)
    assert isinstance(results, list)
    path = tmp_path_factory.mktemp("data") / "answers.jsonl"
    rows = [
        {"prompt_ids": prompt, "answer_ids": result.token_ids, "source": "toy", "licence": "MIT"}
        for prompt, result in zip(prompts, results, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def documents(data: Path, tokenizer: Any) -> Documents:
    return make_documents(read_rows([data]), tokenizer, length=48, vocab_size=60)


@pytest.fixture(scope="session")
def features(
    decoding: Engine, documents: Documents, tmp_path_factory: pytest.TempPathFactory
) -> Features:
    """The last hidden states and those of layers 1 and 2."""
    made = Features(
        tmp_path_factory.mktemp("features"), decoding.target, documents, (1, 2), torch.float32
    )
    made.make(made.missing)
    return made


@pytest.fixture
def trained(target: Any, tokenizer: Any, data: Path, tmp_path: Path) -> Callable[..., Any]:
    """Train on the small target into ``tmp_path / "head"``, by `SHORT` with changes."""

    def run(**changes: Any) -> Any:
        given: dict[str, Any] = {"data": data, "out": tmp_path / "head", **SHORT, **changes}
        return train(target, tokenizer=tokenizer, **given)

    return run
