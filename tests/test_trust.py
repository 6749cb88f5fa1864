"""No code that comes with a checkpoint runs, and nothing is asked, unless the user trusts it."""

from __future__ import annotations

import ast
import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import dynamic_module_utils

from specdec import Engine
from specdec.errors import CheckpointError, OptionError, SpecdecError
from specdec.models.checkpoints import load_model, load_tokenizer

CONFIGURATION = """
from transformers import LlamaConfig
open({mark!r}, "w").write("ran")
class OtherConfig(LlamaConfig):
    model_type = "other"
"""
MODELLING = """
from transformers import LlamaForCausalLM
from .configuration_other import OtherConfig
class OtherForCausalLM(LlamaForCausalLM):
    config_class = OtherConfig
"""
TOKENIZER = """
from transformers import PreTrainedTokenizerFast
open({mark!r}, "w").write("ran")
class OtherTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that code of a checkpoint would write; a question on standard input is a failure."""
    asked: list[str] = []

    def say_yes(question: str = "") -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", say_yes)
    # Trusted code is copied there before it is imported, whatever other tests have imported so.
    modules = str(tmp_path / "modules")
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", modules)
    monkeypatch.setattr(sys, "path", [modules, *sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path / "mark"
    assert not asked


def change(path: Path, **fields: Any) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **fields}))


@pytest.fixture
def remote(model: Any, tmp_path: Path, mark: Path) -> Path:
    """A model whose classes lie beside its weights."""
    folder = tiny.save_model(model, tmp_path / "remote")
    change(
        folder / "config.json",
        model_type="other",
        architectures=["OtherForCausalLM"],
        auto_map={
            "AutoConfig": "configuration_other.OtherConfig",
            "AutoModelForCausalLM": "modeling_other.OtherForCausalLM",
        },
    )
    (folder / "configuration_other.py").write_text(CONFIGURATION.format(mark=str(mark)))
    (folder / "modeling_other.py").write_text(MODELLING)
    return folder


def test_code_of_a_model_is_not_run(remote: Path, mark: Path, plain: Engine) -> None:
    for make in (
        lambda: Engine(remote, strategy="plain"),
        lambda: plain.with_strategy("draft_model", drafter=remote),
    ):
        with pytest.raises(CheckpointError, match="trust_remote_code=True if you trust it"):
            make()
    # Beside a head nothing of it is even looked at.
    with pytest.raises(CheckpointError):
        plain.with_strategy("eagle2", drafter=remote)
    assert not mark.exists()


@pytest.mark.parametrize("word", ["false", "no", "true", 0, 1, None])
def test_only_true_is_trust(remote: Path, mark: Path, plain: Engine, word: Any) -> None:
    for make in (
        lambda: Engine(remote, strategy="plain", trust_remote_code=word),
        lambda: load_model(remote, dtype="auto", device="cpu", trust_remote_code=word),
        lambda: load_tokenizer(remote, trust_remote_code=word),
    ):
        with pytest.raises(OptionError, match=f"trust_remote_code={word!r}: give True or False"):
            make()
    assert not mark.exists()


@pytest.mark.parametrize("word", ["false", "true", "yes", 1])
def test_only_true_is_trust_in_a_draft_model(
    remote: Path, mark: Path, plain: Engine, word: Any
) -> None:
    options = {"drafter": {"trust_remote_code": word}}
    with pytest.raises(OptionError, match=f"drafter.trust_remote_code={word!r}: .*boolean"):
        plain.with_strategy("draft_model", drafter=remote, options=options)
    assert not mark.exists()


def test_code_of_a_tokenizer_is_not_run(
    model: Any, tokenizer: Any, tmp_path: Path, mark: Path
) -> None:
    folder = tiny.save_model(model, tmp_path / "model")
    tokenizer.save_pretrained(folder)
    change(
        folder / "tokenizer_config.json",
        tokenizer_class="OtherTokenizer",
        auto_map={"AutoTokenizer": [None, "tokenization_other.OtherTokenizer"]},
    )
    (folder / "tokenization_other.py").write_text(TOKENIZER.format(mark=str(mark)))
    try:
        Engine(folder, strategy="plain")
    except CheckpointError as error:
        assert "trust_remote_code" in str(error)
    assert not mark.exists()
    assert load_tokenizer(folder, trust_remote_code=True) is not None
    assert mark.exists()


def test_code_to_generate_with_is_not_run(model: Any, tmp_path: Path, mark: Path) -> None:
    folder = tiny.save_model(model, tmp_path / "model")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(
        f"open({str(mark)!r}, 'w').write('ran')\ndef generate(model, **kwargs): return None\n"
    )
    Engine(folder, strategy="plain").generate([1, 2], max_new_tokens=2)
    assert not mark.exists()


def test_a_kernel_of_the_hub_that_a_config_names_is_not_fetched(model: Any, tmp_path: Path) -> None:
    folder = tiny.save_model(model, tmp_path / "model")
    change(folder / "config.json", attn_implementation="someone/kernel")
    engine = Engine(folder, strategy="plain")
    assert engine.target.config._attn_implementation == "sdpa"


def test_a_chat_template_cannot_reach_python(
    model: Any, tokenizer: Any, tmp_path: Path, mark: Path
) -> None:
    folder = tiny.save_model(model, tmp_path / "model")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}"
        "{{ cycler.__init__.__globals__.os.mkdir('" + str(mark) + "') }}"
    )
    tokenizer.save_pretrained(folder)
    engine = Engine(folder, strategy="plain")
    with pytest.raises(Exception, match=r"unsafe|template"):
        engine.generate([{"role": "user", "content": "A"}], max_new_tokens=2)
    assert not mark.exists()


class Payload:
    """Unpickling this would write a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.mark),)


@pytest.mark.parametrize("sharded", [False, True])
def test_code_in_pickled_weights_of_a_model_is_not_run(
    model: Any, tmp_path: Path, mark: Path, sharded: bool
) -> None:
    folder = tiny.save_model(model, tmp_path / "model")
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    (folder / "model.safetensors").unlink()
    weights["model.norm.weight"] = Payload(mark)
    if sharded:
        torch.save(weights, folder / "part-1.bin")
        places = dict.fromkeys(weights, "part-1.bin")
        change(folder / "pytorch_model.bin.index.json", metadata={}, weight_map=places)
    else:
        torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(SpecdecError):
        Engine(folder, strategy="plain")
    assert not mark.exists()


def test_trusted_code_runs(remote: Path, mark: Path) -> None:
    engine = Engine(remote, strategy="plain", trust_remote_code=True)
    assert type(engine.target.model).__name__ == "OtherForCausalLM"
    assert mark.exists()
    trusting = {"drafter": {"trust_remote_code": True}}
    drafted = engine.with_strategy("draft_model", drafter=remote, options=trusting)
    assert type(drafted.parts.drafter.model.model).__name__ == "OtherForCausalLM"
    with pytest.raises(CheckpointError, match="was not run"):
        engine.with_strategy("draft_model", drafter=remote)  # asked for each checkpoint by itself


def test_no_loader_of_transformers_is_called_without_saying_whether_code_is_trusted() -> None:
    """transformers asks on standard input where ``trust_remote_code`` is left out."""
    root = Path(__file__).parent.parent
    found = 0
    for folder in ("specdec", "plugins", "scripts", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if not isinstance(call, ast.Call):
                    continue
                loader = ast.unparse(call.func)
                if loader.startswith("Auto") and loader.endswith(".from_pretrained"):
                    found += 1
                    said = {keyword.arg for keyword in call.keywords}
                    assert said & {"trust_remote_code", None}, f"{path}: {loader}"
    assert found >= 6


def test_the_loaders_do_not_trust_unless_told(remote: Path, mark: Path) -> None:
    with pytest.raises(CheckpointError, match="was not run"):
        load_model(remote, dtype="auto", device="cpu")
    assert not mark.exists()
