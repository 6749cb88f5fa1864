"""EAGLE-1/2 checkpoints of every layout load to the same network, and each fault is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import heads
import pytest
import tiny
import torch
from heads import EAGLE_LAYOUTS, eagle_in_layout, refused, same_trees
from tiny import PROMPTS

from specdec import Engine
from specdec_plugins.eagle.checkpoint import load_head, tensors_of
from specdec_plugins.eagle.head import EagleHead

pytestmark = pytest.mark.parametrize("layout", EAGLE_LAYOUTS)


@pytest.fixture
def own(plain: Engine, head: Path) -> EagleHead:
    found = load_head(head, plain.target)
    assert isinstance(found, EagleHead) and found.fc.bias is not None
    return found


def test_every_layout_loads_to_the_same_network_and_drafts_the_same_trees(
    plain: Engine, own: EagleHead, tmp_path: Path, layout: str
) -> None:
    folder = eagle_in_layout(layout, own).save(tmp_path)
    loaded = load_head(folder, plain.target)
    assert isinstance(loaded, EagleHead)
    assert tensors_of(loaded).keys() == tensors_of(own).keys()
    assert all(torch.equal(x, tensors_of(loaded)[name]) for name, x in tensors_of(own).items())
    by_file, by_module = (
        plain.with_strategy("eagle2", drafter=each, options=tiny.EAGLE2) for each in (folder, own)
    )
    same_trees(by_file, by_module, max_new_tokens=8, temperature=0)


def test_a_bias_that_the_config_does_not_speak_of_is_read_off_the_tensors(
    plain: Engine, own: EagleHead, tmp_path: Path, layout: str
) -> None:
    def loaded() -> Any:
        return load_head(written.save(tmp_path), plain.target)

    written = eagle_in_layout(layout, own)
    name = "bias" if layout == "official" else "fusion_bias"
    del written.fields[name]
    assert loaded().fc.bias is not None
    (bias,) = (key for key in written.weights if key.endswith("fc.bias"))
    del written.weights[bias]
    assert loaded().fc.bias is None
    written.fields[name] = True
    refused(written.save(tmp_path), plain, f"missing keys: {bias}", f'"{name}": true, and fc.bias')


def test_each_missing_tensor_is_named(
    plain: Engine, own: EagleHead, tmp_path: Path, layout: str
) -> None:
    heads.each_missing_is_named(eagle_in_layout(layout, own), plain, tmp_path)


def test_each_misshapen_tensor_and_each_with_nan_or_infinity_is_named(
    plain: Engine, own: EagleHead, tmp_path: Path, layout: str
) -> None:
    written = eagle_in_layout(layout, own)
    heads.each_fault_is_named(written, plain, tmp_path, lambda key: f"{key} has shape")


@pytest.mark.parametrize("key", ["extra", "lm_head.weight", "norm.weight"])
def test_each_surplus_tensor_is_named(
    plain: Engine, own: EagleHead, tmp_path: Path, layout: str, key: str
) -> None:
    heads.surplus_is_named(eagle_in_layout(layout, own), plain, tmp_path, key)


def test_a_head_of_few_positions_drafts_in_a_longer_text(
    plain: Engine, own: EagleHead, tmp_path: Path, layout: str
) -> None:
    written = eagle_in_layout(layout, own)
    inner = written.fields.get("transformer_layer_config", written.fields)
    inner["max_position_embeddings"] = 8
    engine = tiny.engine(plain, "eagle2", written.save(tmp_path))
    assert engine.parts.drafter.head.config.max_position_embeddings == 8
    settings: dict[str, Any] = {"max_new_tokens": 40, "temperature": 0}
    results = engine.generate(PROMPTS, **settings)
    assert [r.token_ids for r in results] == tiny.tokens(plain, PROMPTS, **settings)
    assert tiny.mean_tau(results) > 1.3
    usual = plain.with_strategy("eagle2", drafter=own, options=tiny.EAGLE2)
    same_trees(engine, usual, **settings)
