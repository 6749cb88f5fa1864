"""Targets with adapters of PEFT: speculation writes what the model writes with its adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPTS

from specdec import Engine

peft = pytest.importorskip("peft")

WARM: dict[str, Any] = {"max_new_tokens": 10, "temperature": 1.0, "seed": 3, "eos_token_id": []}
LAYERS = ["q_proj", "v_proj", "down_proj"]


def lora(**changes: Any) -> Any:
    return peft.LoraConfig(r=2, init_lora_weights=False, target_modules=LAYERS, **changes)


def with_one(config: Callable[[], Any]) -> Callable[[], Any]:
    def make() -> Any:
        torch.manual_seed(0)
        return peft.get_peft_model(tiny.make_model(), config()).double()

    return make


def with_two() -> Any:
    """The second of them is in use."""
    model = with_one(lora)()
    model.add_adapter("second", lora())
    model.set_adapter("second")
    return model.double()


KINDS: dict[str, Callable[[], Any]] = {
    "LoRA": with_one(lora),
    "DoRA": with_one(lambda: lora(use_dora=True)),
    "IA3": with_one(
        lambda: peft.IA3Config(
            target_modules=LAYERS, feedforward_modules=["down_proj"], init_ia3_weights=False
        )
    ),
    "two adapters": with_two,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_an_adapter_writes_its_own_text(kind: str, draft: Path) -> None:
    model = KINDS[kind]()
    plain = Engine(model, strategy="plain")
    for temperature in (0.0, 1.0):
        settings = {**WARM, "temperature": temperature}
        wanted = tiny.tokens(plain, PROMPTS, **settings)
        if temperature == 0:
            theirs = model.eval()
            assert wanted == [tiny.greedy_reference(theirs, prompt, 10) for prompt in PROMPTS]
        bare = Engine(tiny.make_model(), strategy="plain")
        assert wanted != tiny.tokens(bare, PROMPTS, **settings), "the adapter does nothing here"
        for name in ("eagle2+draft_model", "auto+draft_model"):
            assert tiny.tokens(tiny.engine(plain, name, draft), PROMPTS, **settings) == wanted


def test_the_adapter_of_an_engine_is_the_one_that_was_active(plain: Engine) -> None:
    model = with_two()
    second = Engine(model, strategy="plain")
    wanted = tiny.tokens(second, PROMPTS, **WARM)
    model.set_adapter("default")
    first = tiny.tokens(Engine(model, strategy="plain"), PROMPTS, **WARM)
    assert first != wanted
    assert tiny.tokens(second, PROMPTS, **WARM) == wanted
    model.set_adapter("second")
    assert tiny.tokens(second.with_strategy("lookup"), PROMPTS, **WARM) == wanted
