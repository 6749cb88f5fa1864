"""Greedy text is transformers' own on every architecture of docs/models.md, past its windows.

Batch 1 and a ragged batch, plain and drafted, on random models in float64.
"""

from __future__ import annotations

from typing import Any

import architectures
import pytest
import tiny
import torch

from specdec import Engine
from specdec.models.attention_mask import MaskForm

NEW = 10
PROMPTS = [
    torch.randint(1, architectures.VOCAB - 4, (n,), generator=torch.Generator().manual_seed(n))
    for n in (37, 5, 50)
]


@pytest.fixture(scope="module", params=architectures.ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    return architectures.make_model(request.param)


def test_greedy_text_is_transformers_own_alone_and_in_a_ragged_batch(model: Any) -> None:
    prompts = [prompt.tolist() for prompt in PROMPTS]
    wanted = [tiny.greedy_reference(model, prompt, NEW) for prompt in prompts]
    engine = Engine(model, strategy="lookup")
    settings = {"temperature": 0, "max_new_tokens": NEW, "eos_token_id": []}
    for each in (engine, engine.with_strategy("plain")):
        assert tiny.tokens(each, prompts, **settings) == wanted
        assert [tiny.tokens(each, prompt, **settings) for prompt in prompts] == wanted


def test_prompts_reach_past_every_window(model: Any) -> None:
    windows = MaskForm.of(model.config.get_text_config()).windows.values()
    assert max((window for window in windows if window is not None), default=0) < len(PROMPTS[0])
