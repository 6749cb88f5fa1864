"""The check at load tells a wrong mask from rounding: by depth, width, dtype and flaw."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import architectures
import pytest
import tiny
import torch
import transformers as hf
from flaws import FLAWS, WINDOW_FLAWS

from specdec import Engine
from specdec.errors import UnsupportedModelError
from specdec.models.attention_mask import MaskForm
from specdec.models.checks.tree_attention import TreeCheck
from specdec.models.hf_target import HFTarget

WINDOW = 20


def make_model(layers: int, hidden: int, scale: float, dtype: torch.dtype, windowed: bool) -> Any:
    """A random model; ``scale`` 0.02 is transformers' own, at which attention does little."""
    config = hf.MistralConfig(
        **{**tiny.SHAPE, "hidden_size": hidden, "intermediate_size": 2 * hidden},
        sliding_window=WINDOW if windowed else None,
    )
    config.num_hidden_layers, config.initializer_range = layers, scale
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return hf.AutoModelForCausalLM.from_config(config).to(dtype).eval()


def margin(target: HFTarget) -> float:
    """The largest error of the check as a part of what it allows; above 1 the model is refused."""
    try:
        return TreeCheck.at_load(target).margin
    except UnsupportedModelError as error:
        found = re.search(r"by (\S+) of the logits' spread.*allowed: ([^)]+)\)", str(error))
        assert found, error
        return float(found[1]) / float(found[2])


def refused(target: HFTarget) -> bool:
    return not margin(target) <= 1


FLOAT32, FLOAT64, BFLOAT16, FLOAT16 = torch.float32, torch.float64, torch.bfloat16, torch.float16
SHAPES: list[Any] = [
    *((1, 16, dtype, True) for dtype in (FLOAT32, FLOAT64, BFLOAT16, FLOAT16)),
    *((1, 256, dtype, False) for dtype in (FLOAT32, BFLOAT16)),
    (12, 16, BFLOAT16, False),
    *(
        pytest.param(layers, hidden, dtype, windowed, marks=pytest.mark.slow)
        for layers, hidden in ((1, 16), (1, 256), (30, 16), (30, 256))
        for dtype in (FLOAT32, BFLOAT16, FLOAT16)
        for windowed in (False, True)
    ),
]


@pytest.mark.parametrize(("layers", "hidden", "dtype", "windowed"), SHAPES)
def test_every_flaw_is_refused_and_nothing_else(
    layers: int,
    hidden: int,
    dtype: torch.dtype,
    windowed: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """Margins on both sides are asserted, and reported with ``--junitxml``."""
    for scale in (0.02, 2 / hidden**0.5):
        target = HFTarget(make_model(layers, hidden, scale, dtype, windowed))
        right = margin(target)
        record_property(f"right, scale {scale:.2f}", right)
        assert right < 1 / 3
        for name, flaw in {**FLAWS, **(WINDOW_FLAWS if windowed else {})}.items():
            with flaw():
                wrong = margin(target)
            record_property(f"{name}, scale {scale:.2f}", wrong)
            assert wrong > 10, (name, scale)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_the_check_leaves_half_precision_weights_as_they_were(dtype: torch.dtype) -> None:
    model = make_model(2, 32, 0.3, dtype, False)
    before = dict(model.state_dict(keep_vars=True))
    TreeCheck.at_load(HFTarget(model))
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is weight for name, weight in before.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_that_is_wrong_as_it_runs_is_refused() -> None:
    """In float32 it is right; in its own dtype a kernel of it is not."""
    model = make_model(2, 32, 0.3, BFLOAT16, False)
    network = type(model.model.layers[1].mlp)
    true = network.forward

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        right = x.dtype == torch.float32 or x.shape[1] > 10
        return true(self, x) if right else 0 * x

    with (
        mock.patch.object(network, "forward", forward),
        pytest.raises(UnsupportedModelError, match="as it runs"),
    ):
        TreeCheck.at_load(HFTarget(model))


def secretly_windowed(window: int) -> Any:
    """A model that masks a window of a name of its own, unless it is given a mask."""
    model = make_model(3, 32, 0.3, FLOAT64, False)
    model.config.max_position_embeddings, model.config.outlook = 2048, window
    layer = model.model.layers[1]
    inner = layer.forward

    def forward(hidden: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> Any:
        n = hidden.shape[1]
        if attention_mask is None and n > 1:
            ones = torch.ones(n, n, dtype=torch.bool)
            attention_mask = (ones.tril() & ones.triu(1 - window))[None, None]
        return inner(hidden, attention_mask=attention_mask, **kwargs)

    layer.forward = forward
    return model


def test_a_window_that_only_the_modules_know_is_found_at_load() -> None:
    with pytest.raises(UnsupportedModelError, match="beyond 40 tokens"):
        Engine(secretly_windowed(40), strategy="plain")


@pytest.mark.parametrize("length", [560, 700])
def test_a_long_window_that_only_the_modules_know_is_refused_when_a_text_gets_there(
    length: int,
) -> None:
    model = secretly_windowed(600)
    engine = Engine(model, strategy="lookup")
    ids = torch.randint(1, 60, (length,), generator=torch.Generator().manual_seed(0)).tolist()
    settings: dict[str, Any] = {"temperature": 0, "eos_token_id": []}
    whole = model(torch.tensor([ids[:400]]), use_cache=False).logits[0, -1].argmax().item()
    assert tiny.tokens(engine, ids[:400], max_new_tokens=1, **settings) == [whole]
    with pytest.raises(UnsupportedModelError, match="beyond 600 tokens"):
        engine.generate(ids, max_new_tokens=60, **settings)
    slow = engine.with_strategy("plain", verifier="path")
    whole = model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
    assert tiny.tokens(slow, ids, max_new_tokens=1, **settings) == [whole]


def test_a_long_window_by_its_name_is_tried_once_and_then_decoded() -> None:
    model = make_model(2, 32, 0.3, FLOAT64, False)
    model.config.sliding_window, model.config.max_position_embeddings = 600, 1024
    engine = Engine(model, strategy="lookup")
    assert engine._shared.check.untried == [600]
    ids = torch.randint(1, 60, (570,), generator=torch.Generator().manual_seed(0)).tolist()
    got = tiny.tokens(engine, ids, max_new_tokens=60, temperature=0, eos_token_id=[])
    assert got == tiny.greedy_reference(model, ids, 60)
    assert engine._shared.check.untried == [] == engine.with_strategy("plain")._shared.check.untried


@pytest.mark.parametrize(("name", "without"), [("llama", True), ("falcon", False)])
def test_one_token_goes_without_a_mask_where_that_changes_nothing(name: str, without: bool) -> None:
    """Falcon makes a mask of its own then, that of a first token."""
    target = HFTarget(architectures.make_model(name))
    assert not refused(target)
    assert target.skips_mask is without
    given: list[Any] = []
    run = HFTarget._run

    def recorded(self: HFTarget, tokens: Any, positions: Any, mask: Any, cache: Any) -> Any:
        if cache is not None and tokens.shape == (1, 1):
            given.append(mask)
        return run(self, tokens, positions, mask, cache)

    engine = Engine(target.model, strategy="plain")
    for each in (engine, engine.with_strategy("plain")):
        given.clear()
        with mock.patch.object(HFTarget, "_run", recorded):
            each.generate([3, 4, 5], max_new_tokens=4, temperature=0)
        assert {mask is None for mask in given} == {without}


def test_a_window_read_from_the_outer_config_is_refused() -> None:
    model = architectures.make_model("gemma3")
    assert not refused(HFTarget(model))
    target = HFTarget(model)
    target.mask_form = MaskForm.of(model.config)
    assert not target.mask_form.windowed
    assert refused(target)


def test_a_late_check_and_decoding_in_other_threads_do_not_see_each_other() -> None:
    model = make_model(2, 32, 0.3, BFLOAT16, False)
    model.config.sliding_window, model.config.max_position_embeddings = 600, 1024
    engine = Engine(model, strategy="lookup")
    short: dict[str, Any] = {"max_new_tokens": 60, "temperature": 0, "eos_token_id": []}
    wanted = tiny.tokens(engine, [3, 4, 5], **short)
    long = torch.randint(1, 60, (620,), generator=torch.Generator().manual_seed(0)).tolist()
    with ThreadPoolExecutor(3) as pool:
        others = [pool.submit(tiny.tokens, engine, [3, 4, 5], **short) for _ in range(4)]
        late = pool.submit(tiny.tokens, engine, long, **{**short, "max_new_tokens": 2})
        others += [pool.submit(tiny.tokens, engine, [3, 4, 5], **short) for _ in range(4)]
        assert all(other.result() == wanted for other in others)
        assert len(late.result()) == 2
    assert engine._shared.check.untried == []


@pytest.mark.parametrize("verifier", ["tree", "path"])
def test_a_model_that_is_not_causal_is_refused_whatever_verifies(verifier: str) -> None:
    config = hf.GemmaConfig(**tiny.SHAPE, head_dim=8, use_bidirectional_attention=True)
    with pytest.raises(UnsupportedModelError, match="not causal"):
        Engine(tiny.make_model(config), strategy="plain", verifier=verifier)


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_every_architecture_passes_in_half_precision(name: str) -> None:
    if name == "gpt_oss":
        pytest.skip("its experts have no bfloat16 on a CPU")
    TreeCheck.at_load(HFTarget(architectures.make_model(name).to(BFLOAT16)))
