"""A target that a plugin wraps runs as the engine was asked to run it."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import PROMPTS
from torch import Tensor

from specdec import Component, Engine, Strategy, hookimpl
from specdec.acceleration import Acceleration
from specdec.acceleration.compiling import CompiledNetwork
from specdec.acceleration.packing import PackedLinear
from specdec.decoding.interfaces import Features, Needs, TreeFunction, TreeProposer
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree
from specdec.errors import PluginError
from specdec.models.hf_target import HFTarget

SETTINGS: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0, "eos_token_id": []}


class Counting(HFTarget):
    forwards = 0

    def forward(self, *arguments: Any, **more: Any) -> Any:
        self.forwards += 1
        return super().forward(*arguments, **more)


class Proxy:
    def __init__(self, model: Any) -> None:
        self.model = model


class Wrapper:
    """A plugin that returns what ``wrap`` makes of the target."""

    def __init__(self, wrap: Any) -> None:
        self.wrap = wrap

    @hookimpl
    def specdec_wrap_target(self, target: HFTarget) -> Any:
        return self.wrap(target)


WAYS = {
    "of the model": lambda target: Counting(target.model),
    "with it": lambda target: Counting(target.model, acceleration=target.acceleration),
}


@pytest.fixture(scope="module")
def large() -> Any:
    """A tiny model whose layers are large enough to be packed."""
    config = tiny.llama_config(hidden_size=128, intermediate_size=1024)
    return tiny.make_model(config).float()


def packed(target: HFTarget) -> bool:
    return any(isinstance(layer, PackedLinear) for layer in target._body.modules())


@pytest.mark.usefixtures("all_packed")
@pytest.mark.parametrize("way", WAYS)
def test_a_wrapped_target_is_packed(large: Any, way: str) -> None:
    engine = Engine(large, strategy="plain", pack=True, plugins=[Wrapper(WAYS[way])])
    bare = Engine(large, strategy="plain", pack=True)
    assert packed(bare.target), "otherwise this test says nothing"
    assert isinstance(engine.target, Counting) and packed(engine.target)
    assert (
        engine.target._body is HFTarget(engine.target.model, acceleration=engine.acceleration)._body
    )
    before = engine.target.forwards
    text = tiny.tokens(engine, PROMPTS[0], **SETTINGS)
    assert text == tiny.tokens(bare, PROMPTS[0], **SETTINGS)
    assert engine.target.forwards == before + 8
    assert packed(engine.with_strategy("lookup").target)
    assert not packed(Engine(large, strategy="plain", plugins=[Wrapper(WAYS[way])]).target)


def test_a_wrapped_target_is_compiled(large: Any) -> None:
    engine = Engine(large, strategy="plain", compile=True, plugins=[Wrapper(WAYS["of the model"])])
    assert isinstance(engine.target._body, CompiledNetwork)
    assert isinstance(engine.target._scorer, CompiledNetwork)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda target: Proxy(target.model),
        lambda target: Counting(target.model, acceleration=Acceleration(compile=True)),
    ],
    ids=["no HFTarget", "another acceleration"],
)
def test_a_target_that_cannot_run_as_asked_is_refused(large: Any, wrap: Any) -> None:
    with pytest.raises(PluginError, match="does not run with pack=True: subclass HFTarget"):
        Engine(large, strategy="plain", pack=True, plugins=[Wrapper(wrap)])


def test_drafters_get_their_layers_from_a_wrapped_target(model: Any) -> None:
    seen: list[Tensor] = []

    class Reader(TreeFunction):
        needs = Needs(hidden=True, aux_layers=(1,))

        def start(self, state: State, features: Features) -> TreeProposer:
            seen.extend(features.hidden.aux)
            return super().start(state, features)

    def again(state: State) -> DraftTree:
        return DraftTree.chain(state.root(), state.root()[:, None])

    class Plugin(Wrapper):
        @hookimpl
        def specdec_drafters(self) -> list[Component]:
            return [Component("reader", lambda options, target: Reader(again))]

        @hookimpl
        def specdec_strategies(self) -> list[Strategy]:
            return [Strategy("reader", drafter="reader")]

    engine = Engine(model, strategy="reader", plugins=[Plugin(WAYS["of the model"])])
    engine.generate(PROMPTS[0], **SETTINGS)
    (aux,) = seen
    ids = torch.tensor([PROMPTS[0]])
    due = model(ids, output_hidden_states=True).hidden_states[1]
    assert torch.allclose(aux, due[:, : aux.shape[1]])
