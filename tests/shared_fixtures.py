"""Shared fixtures: a tiny target, an EAGLE head, a draft model, a tokenizer, engines on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from heads import LAYERS, head_for

import specdec.engine
from specdec import Engine
from specdec.acceleration import Acceleration
from specdec.acceleration.copy_times import CopyTimes, LinearShape, TwoCopies
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.testing import eagle3_head

torch.set_num_threads(1)


class PackedIsFaster(CopyTimes):
    """Every layer runs on its packed copy, whatever the machine does meanwhile."""

    def measure(self, layers: Iterable[TwoCopies]) -> None:
        pass

    def packed_is_faster(self, shape: LinearShape) -> tuple[bool, ...]:
        return (True,)


@pytest.fixture
def all_packed(monkeypatch: pytest.MonkeyPatch) -> CopyTimes:
    """``Engine(pack=True)`` runs every layer on its packed copy; so does what is given this."""
    times = PackedIsFaster()
    monkeypatch.setattr(
        specdec.engine, "Acceleration", lambda **given: Acceleration(**given, copy_times=times)
    )
    return times


@pytest.fixture(scope="session")
def model() -> Any:
    """A tiny random Llama in float64 whose greedy text varies."""
    return tiny.make_model()


@pytest.fixture(scope="session")
def head(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an EAGLE head that is right about half of the time."""
    return tiny.make_head(tmp_path_factory.mktemp("head"), model)


@pytest.fixture(scope="session")
def head3(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an EAGLE-3 head with a draft vocabulary of its own."""
    return Path(eagle3_head(model, tmp_path_factory.mktemp("head3")))


@pytest.fixture(scope="session")
def draft(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a draft model that is right most of the time."""
    return tiny.save_model(tiny.noisy_copy(model), tmp_path_factory.mktemp("draft"))


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return tiny.make_tokenizer()


@pytest.fixture(scope="session")
def plain(model: Any, tokenizer: Any) -> Engine:
    """Plain decoding of the tiny target."""
    return Engine(model, strategy="plain", tokenizer=tokenizer)


@pytest.fixture(scope="session")
def eagle(plain: Engine, head: Path) -> Engine:
    """EAGLE-2 with the tiny head."""
    return tiny.engine(plain, "eagle2", head)


@pytest.fixture(scope="session")
def eagle3(plain: Engine, head3: Path) -> Engine:
    """An EAGLE-3 head and EAGLE-2's tree."""
    return tiny.engine(plain, "eagle3", head3)


@pytest.fixture(scope="session")
def dynamic(plain: Engine, draft: Path) -> Engine:
    """EAGLE-2's tree with the draft model, for long accepted paths."""
    return tiny.engine(plain, "eagle2+draft_model", draft)


@pytest.fixture(scope="session")
def deep() -> Engine:
    """Plain decoding of a target of eight layers."""
    return Engine(tiny.make_model(tiny.llama_config(num_hidden_layers=LAYERS)), strategy="plain")


@pytest.fixture(scope="session")
def deep_head(deep: Engine) -> Eagle3Head:
    """An EAGLE-3 head that reads the usual auxiliary layers of the deep target."""
    return head_for(deep.target.model)
