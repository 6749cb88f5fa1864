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
from specdec.training.batch import Batch
from specdec.training.batches import Batches
from specdec.training.documents import Documents, make_documents
from specdec.training.hidden_state_store import HiddenStateStore
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
) -> HiddenStateStore:
    """The last hidden states and those of layers 1 and 2."""
    made = HiddenStateStore(
        tmp_path_factory.mktemp("features"), decoding.target, documents, (1, 2), torch.float32
    )
    made.make(made.missing)
    return made


@pytest.fixture
def batch_of(features: HiddenStateStore) -> Callable[[list[list[int]]], Batch]:
    """Windows of the documents given."""

    def load(windows: list[list[int]]) -> Batch:
        return Batches(features, [0], length=200, tokens=200, seed=0).load(windows)

    return load


@pytest.fixture
def check_learning(features: HiddenStateStore) -> Callable[..., None]:
    """What a recipe makes learns the documents: its loss falls below this share of the first, and
    the first depth agrees more often with the target."""

    def check(recipe: Any, share: float) -> None:
        torch.manual_seed(0)
        head = recipe.make()
        data = Batches(features, range(50), length=64, tokens=256, seed=0)
        held_out = Batches(features, range(50, 60), length=64, tokens=1024, seed=0)
        measure = held_out.load(held_out.epoch(0)[0])
        optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
        with torch.no_grad():
            before = recipe.agreement(head, measure)
        losses = []
        for epoch in range(3):
            for windows in data.epoch(epoch):
                loss = recipe.loss(head, data.load(windows))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        with torch.no_grad():
            after = recipe.agreement(head, measure)
        assert sum(losses[-5:]) < share * sum(losses[:5])
        assert after[0, 0] > before[0, 0] and torch.equal(after[:, 1], before[:, 1])

    return check


@pytest.fixture
def trained(target: Any, tokenizer: Any, data: Path, tmp_path: Path) -> Callable[..., Any]:
    """Train on the small target into ``tmp_path / "head"``, by `SHORT` with changes."""

    def run(**changes: Any) -> Any:
        given: dict[str, Any] = {"data": data, "out": tmp_path / "head", **SHORT, **changes}
        return train(target, tokenizer=tokenizer, **given)

    return run
