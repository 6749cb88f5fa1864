"""Models that a device_map has laid out: decoded as they are, like the same model in one place."""

from __future__ import annotations

import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from counting import counting
from test_cache import SHAPES
from tiny import PROMPTS
from transformers import AutoModelForCausalLM

import specdec.hf
from specdec import Engine
from specdec.errors import OptionError, UnsupportedModelError
from specdec.hf.engines import engine_for
from specdec.kv_cache.kv_cache import KVCache
from specdec.models.fingerprints import fingerprint_of_model
from specdec.models.placement import device_of, is_placed, places
from specdec.plugin import loading

accelerate = pytest.importorskip("accelerate")

WARM: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3}
IN_MEMORY = dict.fromkeys(
    ["model.embed_tokens", "model.rotary_emb", "model.layers", "model.norm", "lm_head"], "cpu"
)
MAPS = {
    "a layer on disk": {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.norm": "cpu",
        "lm_head": "cpu",
    },
    "embedding and lm_head on disk": {
        **IN_MEMORY,
        "model.embed_tokens": "disk",
        "lm_head": "disk",
    },
    "everything on disk": {"": "disk"},
}


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(model, tmp_path_factory.mktemp("model"))


def placed(folder: Path, where: str, offload: Path, **changes: Any) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        folder, device_map=MAPS[where], offload_folder=offload, **{"dtype": "float64", **changes}
    )
    assert is_placed(model) and any(weight.is_meta for weight in model.parameters())
    return model


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("where", MAPS)
def test_a_placed_model_writes_the_same_text(
    plain: Engine, head: Path, folder: Path, tmp_path: Path, where: str, temperature: float
) -> None:
    settings = {**WARM, "temperature": temperature}
    wanted = tiny.tokens(plain, PROMPTS, **settings)
    model = placed(folder, where, tmp_path)
    own = Engine(model, strategy="plain")
    assert own.target.device.type == "cpu"
    for engine in (own, tiny.engine(own, "eagle2", head), own.with_strategy("lookup")):
        assert tiny.tokens(engine, PROMPTS, **settings) == wanted
    assert model.lm_head.weight.is_meta == (where != "a layer on disk")


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_model_that_accelerate_has_placed_by_itself_writes_the_same_text(
    model: Any, plain: Engine, head: Path, folder: Path, tmp_path: Path, share: float | None
) -> None:
    """``share``: the part of the model that may be in memory; None: whatever there is."""
    size = sum(weight.nbytes for weight in model.parameters())
    room = {"max_memory": {"cpu": int(share * size)}} if share else {}
    own = AutoModelForCausalLM.from_pretrained(
        folder, device_map="auto", offload_folder=tmp_path, dtype="float64", **room
    )
    where = getattr(own, "hf_device_map", {}).values()  # none where one device has it all
    assert (share is not None) == ("disk" in where)
    engine = Engine(own, strategy="plain")
    for name, temperature in (("eagle2", 1.0), ("auto", 0.0)):
        settings = {**WARM, "temperature": temperature}
        wanted = tiny.tokens(plain, PROMPTS, **settings)
        assert tiny.tokens(tiny.engine(engine, name, head), PROMPTS, **settings) == wanted


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}, *MAPS.values()], ids=str)
def test_the_engine_places_the_model_that_it_loads(
    plain: Engine, head: Path, folder: Path, device_map: Any
) -> None:
    wanted = tiny.tokens(plain, PROMPTS, **WARM)
    own = Engine(folder, strategy="plain", device_map=device_map)
    on_disk = "disk" in (device_map.values() if isinstance(device_map, dict) else ())
    assert is_placed(own.target.model) == on_disk
    assert ("disk" in places(own.target.model, own.target.device)) == on_disk
    again = pickle.loads(pickle.dumps(own))  # noqa: S301
    assert is_placed(again.target.model) == on_disk
    for engine in (own, tiny.engine(own, "eagle2", head), again):
        assert tiny.tokens(engine, PROMPTS, **WARM) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"device_map": "auto", "device": "cpu"}, "^device and device_map each say where"),
        ({"device_map": "auto", "tensor_parallel": True}, "^device_map and tensor_parallel each"),
        ({"tensor_parallel": True, "device": "cpu"}, "^device and tensor_parallel each say where"),
        ({"tensor_parallel": True}, r"this is the only one.*torchrun --nproc-per-node 2 script.py"),
        ({"device_map": "atuo"}, "^device_map='atuo': give one of auto, balanced, "),
        ({"device_map": {}}, "^device_map={}: give one of auto, balanced, "),
        ({"device_map": "cuda:77"}, "^device_map='cuda:77': give one of auto, balanced, "),
        ({"device_map": {"": "cuda:77"}}, "^device_map={'': 'cuda:77'}: give one of auto, "),
        ({"device_map": {"": "cpu", "modle": "cpu"}}, "^device_map names 'modle', which the mod"),
    ],
    ids=lambda each: " and ".join(each) if isinstance(each, dict) else "",
)
def test_a_placement_that_cannot_be_is_refused_by_name(
    folder: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        Engine(folder, strategy="plain", **given)


@pytest.mark.parametrize("given", [{"device_map": "cpu"}, {"tensor_parallel": True}], ids=str)
def test_a_loaded_model_is_not_placed_anew(model: Any, given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(OptionError, match=f"^{name} is for a model that the engine loads"):
        Engine(model, strategy="plain", **given)


def test_a_placement_without_accelerate_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "is_accelerate_available", lambda: False)
    with pytest.raises(OptionError, match=r"^device_map needs accelerate: pip install accelerate$"):
        Engine(folder, strategy="plain", device_map="auto")


@pytest.mark.parametrize("where", MAPS)
def test_it_decodes_inside_generate_with_one_engine(
    model: Any, folder: Path, tmp_path: Path, where: str
) -> None:
    own, ids = placed(folder, where, tmp_path), torch.tensor(PROMPTS[:1])
    settings = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    wanted = model.generate(ids, **settings)
    arguments = {"strategy": "lookup", "drafter": None, "tokenizer": None}
    first = engine_for(own, arguments)
    for _ in range(2):
        found = own.generate(ids, custom_generate=specdec.hf.decoder("lookup"), **settings)
        assert found.equal(wanted)
    assert engine_for(own, arguments) is first


@pytest.mark.parametrize("where", MAPS)
def test_its_fingerprint_is_that_of_the_model_in_one_place(
    model: Any, folder: Path, tmp_path: Path, where: str
) -> None:
    placed_one = placed(folder, where, tmp_path)
    assert fingerprint_of_model(placed_one) == fingerprint_of_model(model)
    with pytest.raises(UnsupportedModelError, match="is not in memory"):
        fingerprint_of_model(tiny.make_model().to("meta"))


def test_in_half_precision_it_is_checked_and_decoded_as_it_is(folder: Path, tmp_path: Path) -> None:
    model = placed(folder, "a layer on disk", tmp_path, dtype="bfloat16")
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    found = Engine(model, strategy="plain")
    wanted = Engine(whole, strategy="plain")
    assert tiny.tokens(found, PROMPTS, **WARM) == tiny.tokens(wanted, PROMPTS, **WARM)
    check = found._shared.check
    assert check is not None and check.margin < 1


def test_the_engine_shares_what_is_offloaded_with_the_model(folder: Path, tmp_path: Path) -> None:
    model = placed(folder, "a layer on disk", tmp_path)
    theirs = model.model.layers[1].mlp.up_proj._hf_hook.weights_map
    engine = Engine(model, strategy="plain")
    ours = engine.target.model.model.layers[1].mlp.up_proj._hf_hook.weights_map
    assert ours is theirs
    gone = weakref.ref(model)
    hooked = engine.target.model.model.layers[1].forward
    assert engine.target.model.model.layers[1] in hooked.args  # not the given model's layer
    assert gone() is model


def test_what_a_placed_model_cannot_do_is_told(head: Path, folder: Path, tmp_path: Path) -> None:
    model = placed(folder, "embedding and lm_head on disk", tmp_path)
    with pytest.raises(OptionError, match="pack=True needs the weights in one place"):
        Engine(model, strategy="plain", pack=True)
    with pytest.raises(OptionError, match=r"placed by a device_map.*leave out device"):
        Engine(model, strategy="plain", device="meta")
    with pytest.raises(OptionError, match=r"lm_head of this model is offloaded.*vocabulary"):
        options = {"drafter": {"checkpoint": str(head), "vocabulary": 20}}
        Engine(model, strategy="eagle2", options=options)
    with pytest.raises(pickle.PicklingError, match="make an engine in the other process"):
        pickle.dumps(Engine(model, strategy="plain"))
    for module in model.modules():
        vars(module).pop("_hf_hook", None)
    with pytest.raises(UnsupportedModelError, match="lost the hooks that bring their weights"):
        Engine(model, strategy="plain")


def test_a_cache_keeps_each_layer_where_it_runs() -> None:
    """The device ``meta`` computes nothing, but refuses indices of another device."""
    there = torch.device("meta")
    spread = [SHAPES[0], type(SHAPES[0])(1, 4, 4, there), SHAPES[2]]
    cpu = torch.device("cpu")
    caches = [KVCache(shapes, 2, 8, torch.float64, cpu) for shapes in (SHAPES, spread)]
    steps = torch.Generator().manual_seed(0)
    for cache in caches:
        steps.manual_seed(0)
        for _ in range(30):
            cache.reserve(4)
            for layer, shape in zip(cache.layers, SHAPES, strict=True):
                own = layer.group.keys.device
                states = [
                    torch.randn(2, shape.heads, 4, dim, dtype=torch.float64, generator=steps)
                    for dim in (shape.key_dim, shape.value_dim)
                ]
                keys, _ = layer.update(*(each.to(own) for each in states))
                assert keys.device == own
            cache.keep(torch.tensor([[0, 2], [1, 3]]), torch.tensor([2, 1]), cache.longest + 2)
        cache.keep_rows(torch.tensor([1]), cache.longest)
    one, other = caches
    assert other.layers[1].group.keys.is_meta
    for place in (0, 2):
        for store in ("keys", "values"):
            assert torch.equal(
                *(getattr(cache.layers[place].group, store)[:, :, :30] for cache in (one, other))
            )


def test_slots_are_copied_to_another_device_once_for_each_forward() -> None:
    there = torch.device("meta")
    shape = type(SHAPES[0])(1, 4, 4, there)
    cache = KVCache([shape] * 3, 2, 8, torch.float64, torch.device("cpu"))
    states = torch.empty(2, 1, 2, 4, dtype=torch.float64, device=there)
    for _ in range(2):
        cache.reserve(2)
        with counting() as counts:
            for layer in cache.layers:
                layer.update(states, states)
        assert counts.outside["_to_copy"] == 1
        assert cache.write_slots.tolist() == [0, 1, 64, 65]


def test_a_module_runs_where_its_hook_says() -> None:
    layer = torch.nn.Linear(2, 2)
    assert device_of(layer) == torch.device("cpu")
    hook = accelerate.hooks.AlignDevicesHook(execution_device="meta")
    accelerate.hooks.add_hook_to_module(layer, hook)
    assert device_of(layer) == torch.device("meta")
