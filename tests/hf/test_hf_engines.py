"""Engines of models in generate: built once, found again, gone with the model."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import tiny
import torch
from hf_batches import PROMPTS, both, padded
from torch import nn

import specdec.hf
from specdec import hookimpl
from specdec.hf import engines
from specdec.hf.engines import engine_for
from specdec.hf.model_state import ENGINES

PLAIN = {"strategy": "plain"}


def decode(model: Any, **arguments: Any) -> Any:
    decoder = specdec.hf.decoder(**arguments)
    call: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    return model.generate(**padded(PROMPTS), custom_generate=decoder, **call)


def test_an_engine_is_found_again_by_model_and_arguments() -> None:
    model, other = tiny.make_model(), tiny.make_model()
    first = engine_for(model, PLAIN)
    assert engine_for(model, dict(PLAIN)) is first
    assert engine_for(other, PLAIN) is not first
    looked = engine_for(
        model, {"strategy": "lookup", "options": {"drafter": {"size_by_cost": False}}}
    )
    assert looked is not first
    assert (
        engine_for(model, {"strategy": "lookup", "options": {"drafter": {"size_by_cost": False}}})
        is looked
    )
    assert (
        engine_for(model, {"strategy": "lookup", "options": {"drafter": {"size_by_cost": True}}})
        is not looked
    )
    assert engine_for(model, PLAIN) is first


@pytest.mark.parametrize("kind", ["mapping", "list"])
def test_options_that_the_caller_changes_later_stay_as_they_were_given(
    kind: str, head: Path
) -> None:
    model = tiny.make_model()
    policy: dict[str, Any] = {"budget": 5} if kind == "mapping" else {"choices": [[0], [1]]}
    strategy = "eagle2" if kind == "mapping" else "static_tree"
    arguments = {"strategy": strategy, "drafter": str(head), "options": {"policy": policy}}
    engine, decoder = engine_for(model, arguments), specdec.hf.decoder(**arguments)
    given = copy.deepcopy(policy)
    if kind == "mapping":
        policy["budget"] = 40
    else:
        policy["choices"].append([2])
    assert engine_for(model, arguments) is not engine
    for each in (engine, engine_for(model, decoder._engine)):
        assert each._arguments["options"]["policy"] == given  # of which it is pickled


def test_the_last_used_are_kept() -> None:
    model = tiny.make_model()
    made = [
        engine_for(model, {"strategy": "lookup", "options": {"drafter": {"depth": n}}})
        for n in range(1, engines.MOST + 2)
    ]
    last = {"strategy": "lookup", "options": {"drafter": {"depth": engines.MOST + 1}}}
    assert engine_for(model, last) is made[-1]
    first = {"strategy": "lookup", "options": {"drafter": {"depth": 1}}}
    assert engine_for(model, first) is not made[0]


def test_calls_that_change_nothing_find_the_engine() -> None:
    model = tiny.make_model()
    decode(model, strategy="plain")
    arguments = {"strategy": "plain", "drafter": None, "tokenizer": None}
    first = engine_for(model, arguments)
    model.generate(**padded(PROMPTS), max_new_tokens=2)
    model(torch.tensor([[5, 9]]), output_hidden_states=True)
    model.train().eval()
    model.generation_config.max_length = 30
    decode(model, strategy="plain")
    assert engine_for(model, arguments) is first


def trained(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)


def replaced(model: Any) -> None:
    model.lm_head = nn.Linear(
        model.config.hidden_size, model.config.vocab_size, bias=False
    ).double()


def hooked(model: Any) -> None:
    model.model.layers[0].register_forward_hook(lambda *given: -given[-1])


def flagged(model: Any) -> None:
    """As adapters are switched: a flag of a layer that its forward reads."""
    layer = model.model.layers[1].mlp
    layer.off = getattr(layer, "off", False) is False
    forward = type(layer).forward
    layer.forward = lambda x: 0 * x if layer.off else forward(layer, x)


def converted(model: Any) -> None:
    model.float()


CHANGES: list[Callable[[Any], None]] = [trained, replaced, hooked, flagged, converted]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_model_that_was_changed_decodes_as_it_is_now(change: Callable[[Any], None]) -> None:
    model = tiny.make_model()
    before, ours = both(model, PROMPTS, eos_token_id=None)
    assert ours.equal(before)
    change(model)
    now, ours = both(model, PROMPTS, eos_token_id=None)
    assert ours.equal(now) and (change is converted or not now.equal(before))


def test_weights_that_an_engine_has_copies_of_are_read_anew(all_packed: Any) -> None:
    model = tiny.make_model(tiny.llama_config(intermediate_size=4096)).float()
    decoder = specdec.hf.decoder("plain", pack=True)
    before, ours = both(model, PROMPTS[:1], decoder, eos_token_id=None)
    assert ours.equal(before)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight.mul_(-1)
    now, ours = both(model, PROMPTS[:1], decoder, eos_token_id=None)
    assert ours.equal(now) and not now.equal(before)


def test_a_flag_that_is_switched_back_is_seen() -> None:
    model = tiny.make_model()
    before, _ = both(model, PROMPTS, eos_token_id=None)
    flagged(model)
    both(model, PROMPTS, eos_token_id=None)
    model.model.layers[1].mlp.off = False
    now, ours = both(model, PROMPTS, eos_token_id=None)
    assert ours.equal(now) and now.equal(before)


def test_an_engine_goes_with_its_model() -> None:
    model = tiny.make_model()
    decode(model, strategy="lookup")
    decode(model, strategy="plain")
    engine = weakref.ref(engine_for(model, PLAIN))
    known, weights = weakref.ref(model), weakref.ref(model.lm_head)
    del model
    gc.collect()
    assert known() is None and weights() is None and engine() is None


def test_an_engine_that_leads_to_its_model_goes_with_it() -> None:
    model = tiny.make_model()
    known = weakref.ref(model)
    model.model.layers[0].register_forward_hook(lambda *given, own=model: None)
    decode(model, strategy="plain")
    del model
    gc.collect()
    assert known() is None


def test_copies_of_a_model_have_no_engines() -> None:
    model = tiny.make_model()
    first = engine_for(model, PLAIN)
    pickled = pickle.dumps(model)
    assert b"specdec" not in pickled.replace(ENGINES.encode(), b""), "it loads without specdec"
    for other in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickled)):  # noqa: S301
        assert engine_for(other, PLAIN) is not first
    assert engine_for(model, PLAIN) is first


def test_weights_are_read_only_where_an_engine_has_copied_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[Any] = []
    monkeypatch.setattr(engines, "fingerprint_of_model", lambda model: read.append(model) or "")
    model = tiny.make_model()
    for own in ({}, {"dtype": model.dtype}, {"device": "cpu"}, {"dtype": str(model.dtype)[6:]}):
        assert engine_for(model, {**PLAIN, **own}) is engine_for(model, {**PLAIN, **own})
    assert not read
    engine_for(model, {**PLAIN, "dtype": torch.float32})
    assert read


def test_engines_are_let_go_of_when_it_is_asked_for() -> None:
    model = tiny.make_model()
    engine = weakref.ref(engine_for(model, PLAIN))
    specdec.hf.forget(model)
    gc.collect()
    assert engine() is None and engine_for(model, PLAIN) is not None
    specdec.hf.forget(tiny.make_model())


def test_plugins_of_an_iterator_serve_every_model() -> None:
    class Steps:
        seen = 0

        @hookimpl
        def specdec_step(self, step: Any) -> None:
            self.seen += 1

    decoder = specdec.hf.decoder("plain", plugins=iter([steps := Steps()]))
    seen = []
    for _ in range(2):
        tiny.make_model().generate(
            **padded(PROMPTS[:1]), custom_generate=decoder, max_new_tokens=3, eos_token_id=None
        )
        seen.append(steps.seen)
    assert seen == [3, 6]


def test_a_model_does_not_wait_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick, built = tiny.make_model(), tiny.make_model(), Event()
    true = engines.Engine

    def build(model: Any, **arguments: Any) -> Any:
        assert model is not slow or built.wait(20)
        return true(model, **arguments)

    monkeypatch.setattr(engines, "Engine", build)
    thread = Thread(target=engine_for, args=(slow, PLAIN))
    thread.start()
    other = Thread(target=engine_for, args=(quick, PLAIN), daemon=True)
    other.start()
    other.join(10)
    free = not other.is_alive()
    built.set()
    thread.join()
    assert free


@pytest.mark.parametrize(
    "given", [{"pack": True}, {"compile": True}, {"dtype": torch.float64}], ids=str
)
def test_weights_written_to_behind_torchs_back_are_read_anew(
    given: dict[str, Any], all_packed: Any
) -> None:
    model = tiny.make_model(tiny.llama_config(intermediate_size=4096)).float()
    arguments = {"strategy": "plain", **given}
    first = engine_for(model, arguments)
    assert engine_for(model, arguments) is first
    model.model.layers[0].mlp.up_proj.weight.data.mul_(-1)
    assert engine_for(model, arguments) is not first


def test_a_config_that_was_changed_is_read_anew() -> None:
    model = tiny.make_model()
    first = engine_for(model, PLAIN)
    model.config.final_logit_softcapping = 3.0
    assert engine_for(model, PLAIN) is not first


def test_threads_that_come_at_the_same_time_build_one() -> None:
    model, found = tiny.make_model(), []
    threads = [Thread(target=lambda: found.append(engine_for(model, PLAIN))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(map(id, found))) == 1
