"""Entries of the config of Medusa and Hydra heads that nobody knows are refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pages import ROOT
from transformers import LlamaConfig

from specdec import Engine
from specdec.errors import CheckpointError
from specdec_plugins.hydra.checkpoint import HEADS as HYDRA
from specdec_plugins.medusa.checkpoint import HEADS as MEDUSA

sys.path.append(str(ROOT / "scripts"))
import make_tiny_heads as tiny_heads

KINDS = {"medusa": MEDUSA, "hydra": HYDRA}
every_layout = pytest.mark.parametrize("layout", tiny_heads.LAYOUTS)


@every_layout
@pytest.mark.parametrize(("word", "value"), [("{}_trick", True), ("new_trick", 0)])
def test_an_unknown_entry_is_refused_by_its_name(
    plain: Engine, tmp_path: Path, layout: str, word: str, value: object
) -> None:
    name = "medusa" if layout.startswith("medusa") else "hydra"
    kind, word = KINDS[name], word.format(name)
    fields, tensors, file = tiny_heads.make(layout)
    folder = tiny_heads.write(({**fields, word: value}, tensors, file), tmp_path)
    says = f"config.json has {word}={value}, which specdec does not know"
    for read in (
        lambda: kind.load(folder, plain.target),
        lambda: kind.describe(folder, None, None),
    ):
        with pytest.raises(CheckpointError, match=says):
            read()


@every_layout
def test_a_copy_of_the_targets_config_loads(plain: Engine, tmp_path: Path, layout: str) -> None:
    kind = KINDS["medusa" if layout.startswith("medusa") else "hydra"]
    fields, tensors, file = tiny_heads.make(layout)
    whole = LlamaConfig(hidden_size=tiny_heads.HIDDEN, vocab_size=tiny_heads.VOCAB).to_dict()
    copied = {**whole, "new_trick": None, **fields}
    folder = tiny_heads.write((copied, tensors, file), tmp_path)
    assert kind.load(folder, plain.target).sizes.heads == tiny_heads.HEADS
