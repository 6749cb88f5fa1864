"""Packed and compiled networks: the same tokens, the user's model untouched, nothing silent."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from torch import nn
from torch.nn.functional import linear
from typer.testing import CliRunner

import specdec.engine
from specdec import Engine
from specdec.acceleration import Acceleration
from specdec.acceleration import compiling as compiling_module
from specdec.acceleration.compiling import CompiledNetwork
from specdec.acceleration.copy_times import CopyTimes
from specdec.acceleration.packing import PackedLinear, pack
from specdec.acceleration.view import CacheView
from specdec.cli.app import app
from specdec.errors import OptionError
from specdec.kv_cache.cache_layers import LayerShape
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.hf_target import HFTarget

SIZES = {"hidden_size": 128, "intermediate_size": 256}
SETTINGS: dict[str, Any] = {"max_new_tokens": 16, "eos_token_id": []}
HALF = torch.bfloat16


def _packable(dtype: torch.dtype) -> bool:
    try:
        PackedLinear(nn.Linear(128, 128, dtype=dtype))
    except (RuntimeError, AttributeError):
        return False
    return dtype != HALF or torch.ops.mkldnn._is_mkldnn_bf16_supported()


needs_bfloat16 = pytest.mark.skipif(
    not _packable(HALF), reason="this processor or torch cannot pack bfloat16"
)
needs_float32 = pytest.mark.skipif(
    not _packable(torch.float32), reason="this torch cannot pack float32"
)


def make(kind: str = "llama") -> Any:
    """A tiny bfloat16 model whose layers are large enough to be packed; qwen2's have biases."""
    if kind == "llama":
        return tiny.make_model(tiny.llama_config(**SIZES)).to(HALF)
    return tiny.make_model(hf.Qwen2Config(**{**tiny.SHAPE, **SIZES})).to(HALF)


@pytest.fixture(scope="module")
def half() -> Any:
    return make()


@pytest.fixture(scope="module")
def half_head(half: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    double = tiny.make_model(tiny.llama_config(**SIZES))
    return tiny.make_head(tmp_path_factory.mktemp("half-head"), double)


def packed_layers(module: nn.Module) -> list[PackedLinear]:
    return [layer for layer in module.modules() if isinstance(layer, PackedLinear)]


# --- packing ---


@needs_bfloat16
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_a_packed_layer_is_the_layer_bit_for_bit_in_bfloat16(
    all_packed: CopyTimes, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(128, 96, bias=bias, dtype=HALF)
    packed = pack(layer, all_packed)
    assert isinstance(packed, PackedLinear)
    for rows in (0, 1, 2, 7, 8, 9, 17, 61):
        for x in (
            torch.randn(rows, 128, dtype=HALF),
            torch.randn(2, rows, 128, dtype=HALF),
            torch.randn(rows, 3, 128, dtype=HALF).transpose(0, 1),
            torch.randn(3, rows, 256, dtype=HALF)[:, :, ::2],
        ):
            assert torch.equal(packed(x), linear(x, layer.weight, layer.bias))


@needs_float32
@torch.inference_mode()
def test_a_packed_layer_is_the_layer_up_to_rounding_in_float32(all_packed: CopyTimes) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(512, 512)
    packed = pack(layer, all_packed)
    assert isinstance(packed, PackedLinear)
    for rows in (0, 1, 2, 7, 8, 9, 17, 61):
        x = torch.randn(1, rows, 512)
        torch.testing.assert_close(packed(x), layer(x))


@needs_bfloat16
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@torch.inference_mode()
def test_a_packed_body_gives_the_same_bits(all_packed: CopyTimes, kind: str) -> None:
    model = make(kind)
    accelerated = Acceleration(pack=True, copy_times=all_packed)
    target, packed = HFTarget(model), HFTarget(model, acceleration=accelerated)
    assert packed_layers(packed._body) and not packed_layers(target._body)
    tokens = torch.arange(18).view(2, 9) % target.vocab_size
    ours, theirs = packed.read(tokens).last, target.read(tokens).last
    assert torch.equal(ours, theirs)
    assert torch.equal(packed.logits(ours), target.logits(theirs))


@needs_bfloat16
@pytest.mark.usefixtures("all_packed")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("strategy", ["eagle2", "plain"])
def test_a_packed_engine_writes_the_same_tokens(
    half: Any, half_head: Path, strategy: str, temperature: float
) -> None:
    settings = {**SETTINGS, "temperature": temperature, "seed": 5}
    drafter = half_head if strategy == "eagle2" else None
    engines = [
        Engine(half, strategy=strategy, drafter=drafter, pack=pack) for pack in (False, True)
    ]
    plain, packed = (tiny.tokens(engine, tiny.PROMPTS, **settings) for engine in engines)
    assert plain == packed
    if drafter:
        assert packed_layers(engines[1].parts.drafter.network)
        assert not packed_layers(engines[0].parts.drafter.network)


@needs_bfloat16
@pytest.mark.usefixtures("all_packed")
def test_a_packed_draft_model_drafts_the_same(half: Any, tmp_path: Path) -> None:
    folder = tiny.save_model(half, tmp_path)
    runs = []
    for packing in (False, True):
        plain = Engine(half, strategy="plain", pack=packing)
        engine = tiny.engine(plain, "draft_model", folder)
        assert bool(packed_layers(engine.parts.drafter.model._body)) == packing
        runs.append(tiny.tokens(engine, tiny.PROMPTS, **SETTINGS, seed=1))
    assert runs[0] == runs[1]


@needs_bfloat16
@pytest.mark.usefixtures("all_packed")
def test_packing_leaves_the_users_model_as_it_was() -> None:
    model = make()
    parameters = {name: (id(p), p.clone()) for name, p in model.named_parameters()}
    types = [(name, type(module)) for name, module in model.named_modules()]
    keys = list(model.state_dict())
    engine = Engine(model, strategy="plain", pack=True)
    engine.generate(tiny.PROMPTS, **SETTINGS)
    assert [(name, type(module)) for name, module in model.named_modules()] == types
    assert list(model.state_dict()) == keys
    for name, parameter in model.named_parameters():
        known, value = parameters[name]
        assert id(parameter) == known and torch.equal(parameter, value)
    own = {id(parameter) for parameter in model.parameters()}
    assert {id(p) for p in engine.target._body.parameters()} <= own
    assert engine.target._body.config is engine.target.model.model.config


@needs_bfloat16
@pytest.mark.usefixtures("all_packed")
def test_a_network_is_packed_once_for_all_engines_on_it(half: Any, half_head: Path) -> None:
    first = Engine(half, strategy="plain", pack=True)
    second = first.with_strategy("eagle2", drafter=half_head)
    assert second.target._body is first.target._body
    assert second.target._scorer is first.target._scorer
    assert second.acceleration is first.acceleration


@needs_bfloat16
def test_tied_embeddings_stay_an_embedding(all_packed: CopyTimes) -> None:
    config = tiny.llama_config(**SIZES, vocab_size=64, tie_word_embeddings=True)
    model = tiny.make_model(config).to(HALF)
    target = HFTarget(model, acceleration=Acceleration(pack=True, copy_times=all_packed))
    assert isinstance(target._scorer, PackedLinear)
    assert target._scorer.get_parameter("weight") is model.get_input_embeddings().weight


@needs_bfloat16
def test_only_plain_linear_layers_are_packed(all_packed: CopyTimes) -> None:
    class Own(nn.Linear):
        """A layer with a forward of its own."""

    layers = nn.Sequential(Own(128, 128, dtype=HALF), nn.Linear(128, 128, dtype=HALF))
    packed = pack(layers, all_packed)
    assert [type(layer) for layer in packed.children()] == [Own, PackedLinear]


@needs_bfloat16
def test_a_layer_used_twice_is_packed_once(all_packed: CopyTimes) -> None:
    layer = nn.Linear(128, 128, dtype=HALF)
    twice = nn.ModuleDict({"a": nn.Sequential(layer), "b": nn.Sequential(layer)})
    packed = pack(twice, all_packed)
    first, second = packed_layers(packed.get_submodule("a")) + packed_layers(
        packed.get_submodule("b")
    )
    assert first is second


def test_what_cannot_be_packed_is_refused_with_the_reason(model: Any) -> None:
    with pytest.raises(OptionError, match=r"float64 weights cannot be packed; give dtype="):
        Engine(model, strategy="plain", pack=True)
    with pytest.raises(OptionError, match="weights on meta cannot be packed"):
        pack(nn.Linear(128, 128, device="meta"))
    with pytest.raises(OptionError, match=r"Embedding has no nn\.Linear"):
        pack(nn.Embedding(4, 4))


@needs_bfloat16
def test_a_head_whose_dtype_cannot_be_packed_is_refused(half: Any, half_head: Path) -> None:
    with pytest.raises(OptionError, match="float64 weights cannot be packed"):
        Engine(half, drafter=half_head, options={"drafter": {"dtype": "float64"}}, pack=True)


def test_packing_and_compiling_together_are_refused(model: Any) -> None:
    with pytest.raises(OptionError, match="compiling packs weights itself"):
        Engine(model, strategy="plain", pack=True, compile=True)


# --- compiling ---


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what ``Engine(compile=True)`` compiles with."""

    def choose(**how: Any) -> None:
        monkeypatch.setattr(
            specdec.engine, "Acceleration", lambda **given: Acceleration(**given, **how)
        )

    return choose


class Recorder:
    """A backend that counts its calls and runs the graph as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


def test_a_shape_is_compiled_when_it_comes_up_often(model: Any) -> None:
    backend = Recorder()
    network = CompiledNetwork(nn.Linear(4, 4), backend=backend, compile_after=3)
    with torch.inference_mode():
        for rows, graphs in [(1, 0), (2, 0), (1, 0), (1, 1), (1, 1), (2, 1), (2, 2)]:
            x = torch.randn(rows, 4)
            torch.testing.assert_close(network(x), network.network(x))
            assert backend.graphs == network.compiled_shapes == graphs


@torch.inference_mode()
def test_more_shapes_than_torch_recompiles_for_are_all_compiled() -> None:
    backend = Recorder()
    network = CompiledNetwork(nn.Linear(4, 4), backend=backend, compile_after=1)
    for _ in range(2):
        for rows in range(1, 21):
            network(torch.randn(rows, 4))
    assert backend.graphs == network.compiled_shapes == 20 and network.failure is None


@pytest.mark.parametrize("temperature", [0.0, pytest.param(1.0, marks=pytest.mark.slow)])
def test_a_compiled_engine_writes_the_same_tokens_and_compiles_once(
    model: Any, head: Path, compiling: Callable[..., None], temperature: float
) -> None:
    backend = Recorder()
    compiling(backend=backend, compile_after=2)
    options = {"policy": {"depth": 2, "top_k": 2, "budget": 4}}
    engine = Engine(model, strategy="eagle2", drafter=head, options=options, compile=True)
    wanted = Engine(model, strategy="eagle2", drafter=head, options=options)
    settings = {**SETTINGS, "max_new_tokens": 8, "temperature": temperature, "seed": 3}
    expected = tiny.tokens(wanted, tiny.PROMPTS[0], **settings)
    counts = []
    for _ in range(4):
        assert tiny.tokens(engine, tiny.PROMPTS[0], **settings) == expected
        counts.append(backend.graphs)
    networks = [engine.target._body, engine.target._scorer, engine.parts.drafter.network]
    assert [network.failure for network in networks] == [None] * 3
    assert all(network.compiled_shapes for network in networks)
    # Every graph belongs to a shape, and new caches of later generations add none.
    assert sum(network.compiled_shapes for network in networks) == counts[-1] == counts[-2]


def test_compiled_generations_of_other_lengths_meet_in_one_shape(
    model: Any, compiling: Callable[..., None]
) -> None:
    backend = Recorder()
    compiling(backend=backend, compile_after=2)
    engine = Engine(model, strategy="plain", compile=True)
    for prompt, new in [(tiny.PROMPTS[0], 12), (tiny.PROMPTS[2], 70)]:
        engine.generate(prompt, **{**SETTINGS, "max_new_tokens": new})
    assert engine.target._body.compiled_shapes == 1


def test_a_compiler_that_fails_is_named_once_and_the_engine_goes_on(
    model: Any, compiling: Callable[..., None]
) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    compiling(backend=broken, compile_after=2)
    engine = Engine(model, strategy="plain", compile=True)
    expected = tiny.tokens(Engine(model, strategy="plain"), tiny.PROMPTS, **SETTINGS)
    with pytest.warns(UserWarning, match="runs uncompiled.*no C\\+\\+ compiler") as caught:
        assert tiny.tokens(engine, tiny.PROMPTS, **SETTINGS) == expected
    ours = [str(w.message) for w in caught if "runs uncompiled" in str(w.message)]
    assert len(ours) == len(set(ours)) == 2  # the body and the lm_head
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tiny.tokens(engine, tiny.PROMPTS, **SETTINGS) == expected


def test_compiled_code_that_computes_something_else_is_not_used(
    model: Any, compiling: Callable[..., None]
) -> None:
    def wrong(graph: Any, inputs: Any) -> Any:
        return lambda *args: [
            out * 1.5 if torch.is_tensor(out) and out.is_floating_point() else out
            for out in graph.forward(*args)
        ]

    compiling(backend=wrong, compile_after=2)
    engine = Engine(model, strategy="plain", compile=True)
    expected = tiny.tokens(Engine(model, strategy="plain"), tiny.PROMPTS, **SETTINGS)
    with pytest.warns(UserWarning, match="differ from the network's own"):
        assert tiny.tokens(engine, tiny.PROMPTS, **SETTINGS) == expected


def test_code_that_is_wrong_only_when_a_graph_is_replayed_is_not_used(
    model: Any, compiling: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong_later(graph: Any, inputs: Any) -> Any:
        runs = 0

        def run(*args: Any) -> Any:
            nonlocal runs
            runs += 1
            return [out * 1.5 if runs > 2 else out for out in graph.forward(*args)]

        return run

    monkeypatch.setattr(compiling_module, "uses_graphs", lambda network: True)
    compiling(backend=wrong_later, compile_after=2)
    engine = Engine(model, strategy="plain", compile=True)
    expected = tiny.tokens(Engine(model, strategy="plain"), tiny.PROMPTS, **SETTINGS)
    with pytest.warns(UserWarning, match="differ from the network's own"):
        assert tiny.tokens(engine, tiny.PROMPTS, **SETTINGS) == expected


def test_a_graph_is_replayed_in_the_thread_that_recorded_it_alone(
    model: Any, compiling: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran_in: set[int] = set()

    def noted(graph: Any, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            ran_in.add(threading.get_ident())
            return graph.forward(*args)

        return run

    monkeypatch.setattr(compiling_module, "uses_graphs", lambda network: True)
    compiling(backend=noted, compile_after=2)
    engine = Engine(model, strategy="plain", compile=True)
    for _ in range(3):  # then every shape has been compiled
        here = tiny.tokens(engine, tiny.PROMPTS[0], **SETTINGS)
    assert ran_in == {threading.get_ident()}
    ran_in.clear()
    with ThreadPoolExecutor(1) as other:
        there = other.submit(lambda: tiny.tokens(engine, tiny.PROMPTS[0], **SETTINGS)).result()
    assert there == here
    assert not ran_in


def test_two_threads_decode_with_one_compiled_engine(
    model: Any, compiling: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(view: CacheView, cache: KVCache, *, fixed: bool = False) -> None:
        follow(view, cache, fixed=fixed)
        time.sleep(0.002)  # the other thread goes on meanwhile

    follow = CacheView.follow
    compiling(backend=Recorder(), compile_after=2)
    engine = Engine(model, strategy="plain", compile=True)
    prompts = [tiny.PROMPTS[0], tiny.PROMPTS[0][::-1]]
    alone = [tiny.tokens(engine, prompt, **SETTINGS) for prompt in prompts]
    assert alone[0] != alone[1]
    monkeypatch.setattr(CacheView, "follow", slow)
    with ThreadPoolExecutor(2) as threads:
        together = threads.map(lambda prompt: tiny.tokens(engine, prompt, **SETTINGS), prompts)
        assert [*together] == alone
    assert engine.target._body.compiled_shapes and engine.target._body.failure is None


@pytest.mark.parametrize("graphs", [False, True], ids=["no graphs", "graphs"])
def test_a_compiled_network_holds_no_memory_of_a_cache_between_its_runs(
    model: Any,
    compiling: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    graphs: bool,
) -> None:
    monkeypatch.setattr(compiling_module, "uses_graphs", lambda network: graphs)
    compiling(backend=Recorder(), compile_after=2)
    engine = Engine(model, strategy="plain", compile=True)
    engine.generate(tiny.PROMPTS[0], **SETTINGS)
    views = [shape._view for shape in engine.target._body._compiled.values()]
    stores = [
        store
        for view in views
        for group in view._groups.values()
        for store in (group.keys, group.values)
    ]
    assert stores and not any(store.untyped_storage().nbytes() for store in stores)


def test_running_out_of_memory_is_not_taken_for_a_failed_compilation() -> None:
    def full(graph: Any, inputs: Any) -> Any:
        def run(*args: Any) -> Any:
            raise torch.OutOfMemoryError("full")

        return run

    network = CompiledNetwork(nn.Linear(4, 4), backend=full, compile_after=1)
    with torch.inference_mode(), pytest.raises(torch.OutOfMemoryError):
        network(torch.randn(1, 4))
    assert network.failure is None


def test_what_cannot_be_compiled_is_refused_with_the_reason() -> None:
    with pytest.raises(OptionError, match="a network on meta cannot be compiled"):
        Acceleration(compile=True).network(nn.Linear(4, 4, device="meta"))


def test_caches_of_a_compiled_engine_have_few_sizes() -> None:
    bucket = Acceleration(compile=True).bucket
    assert [bucket(n) for n in (1, 256, 257, 512, 513)] == [256, 256, 512, 512, 1024]
    shape = LayerShape(1, 2, 2)
    cache = KVCache([shape], 1, 300, torch.float32, torch.device("cpu"), bucket)
    cache.reserve(5)
    assert (cache.capacity, cache.view) == (512, 256)
    cache.grow(513)
    assert cache.capacity == 1024


@pytest.mark.slow
def test_inductor_writes_the_same_tokens(model: Any, compiling: Callable[..., None]) -> None:
    compiling(compile_after=2)
    single = tiny.make_model().float()
    engine = Engine(single, strategy="plain", compile=True)
    wanted = tiny.tokens(Engine(single, strategy="plain"), tiny.PROMPTS, **SETTINGS)
    assert tiny.tokens(engine, tiny.PROMPTS, **SETTINGS) == wanted
    assert engine.target._body.failure is None and engine.target._body.compiled_shapes


# --- the command line ---


@pytest.fixture(scope="module")
def folder(half: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny.save_model(half, tmp_path_factory.mktemp("half"))
    tokenizer.save_pretrained(path)
    return path


def command(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


ON_CPU = ("--device", "cpu")
GENERATE = ("generate", "HELLO", "-s", "plain", "--max-new-tokens", 1, "--repeat", 1, *ON_CPU)


@needs_bfloat16
@pytest.mark.parametrize("flag", ["pack", pytest.param("compile", marks=pytest.mark.slow)])
def test_generate_takes_the_flags_and_records_them(folder: Path, flag: str) -> None:
    result = command(*GENERATE, "-m", folder, "--json", f"--{flag}")
    assert result.exit_code == 0, result.stderr
    settings = json.loads(result.stdout)["settings"]
    assert (settings["pack"], settings["compile"]) == (flag == "pack", flag == "compile")


@needs_bfloat16
def test_bench_takes_the_flags_and_records_them(folder: Path) -> None:
    flags = ["--max-new-tokens", 4, "--prompts", 1, "--repetitions", 1, "--no-transformers"]
    shown = ["-m", folder, "--json", "-", "--pack", *ON_CPU]
    shown += ["--strategies", "draft_model", "-o", f"drafter={folder}"]
    result = command("bench", *shown, *flags)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["pack"], found["compile"]) == (True, False)
    assert found["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pack", "--compile"], "compiling packs weights itself"),
        (["--pack", "--dtype", "float64"], "float64 weights cannot be packed"),
    ],
)
def test_refused_flags_end_in_one_message(folder: Path, flags: list[str], message: str) -> None:
    result = command(*GENERATE, "-m", folder, *flags)
    assert result.exit_code == 2 and message in result.stderr
    assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) == 1
