"""Checkpoints of heads and models: what fits is loaded, what does not is named, nothing is run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny import PROMPTS

from specdec import Engine
from specdec.errors import CheckpointError


class Editable:
    """A copy of a head that a test may damage."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = Path(shutil.copytree(source, folder))

    def config(self, **changes: Any) -> Editable:
        """Set config entries; None removes one."""
        path = self.folder / "config.json"
        fields = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
        return self

    def weights(self, **changes: Any) -> Editable:
        """Set tensors (``__`` stands for a dot); None removes one."""
        path = self.folder / "model.safetensors"
        tensors = load_file(path)
        for name, value in changes.items():
            tensors[name.replace("__", ".")] = value
        save_file({k: v for k, v in tensors.items() if v is not None}, path)
        return self


@pytest.fixture
def editable(head: Path, tmp_path: Path) -> Editable:
    return Editable(head, tmp_path / "head")


def refused(plain: Engine, checkpoint: Any, *says: str) -> None:
    with pytest.raises(CheckpointError) as error:
        plain.with_strategy("eagle2", drafter=checkpoint)
    for part in says:
        assert part in str(error.value), f"{part!r} is not in: {error.value}"


def test_a_head_of_another_hidden_size_or_vocabulary_is_refused(
    plain: Engine, editable: Editable
) -> None:
    editable.config(hidden_size=48)
    refused(plain, editable.folder, "hidden_size 48", "the target model has 32")
    editable.config(hidden_size=32, vocab_size=61)
    refused(plain, editable.folder, "vocab_size 61", "the target model has 60")
    editable.config(vocab_size=None)
    refused(plain, editable.folder, "vocab_size=None")


def test_missing_extra_and_misshapen_tensors_are_each_named(
    plain: Engine, editable: Editable
) -> None:
    editable.weights(
        layers__0__mlp__up_proj__weight=None,
        lm_head__weight=torch.zeros(60, 32),
        fc__weight=torch.zeros(32, 32),
    )
    refused(
        plain,
        editable.folder,
        "missing keys: layers.0.mlp.up_proj.weight",
        "unexpected keys: lm_head.weight",
        "fc.weight has shape [32, 32], not [32, 64]",
    )


def test_a_bias_that_the_config_does_not_speak_of_is_read_off_the_tensors(
    plain: Engine, editable: Editable
) -> None:
    def bias() -> Any:
        return plain.with_strategy("eagle2", drafter=editable.folder).parts.drafter.head.fc.bias

    editable.config(bias=False)
    refused(plain, editable.folder, "unexpected keys: fc.bias", '"bias": false, and fc.bias is th')
    editable.config(bias=None)
    assert bias() is not None
    editable.weights(fc__bias=None)
    assert bias() is None
    editable.config(bias=True)
    refused(plain, editable.folder, "missing keys: fc.bias", '"bias": true, and fc.bias is miss')
    editable.config(bias=False)
    assert bias() is None


def test_where_there_are_weights_twice_the_log_says_which_are_read(
    plain: Engine, editable: Editable, caplog: pytest.LogCaptureFixture
) -> None:
    (editable.folder / "pytorch_model.bin").write_bytes(b"not looked at")
    with caplog.at_level("INFO", "specdec"):
        plain.with_strategy("eagle2", drafter=editable.folder)
    assert "has model.safetensors and pytorch_model.bin: the first is read" in caplog.text


def test_a_bin_head_equals_its_safetensors_twin(
    plain: Engine, eagle: Engine, editable: Editable
) -> None:
    path = editable.folder / "model.safetensors"
    torch.save(load_file(path), editable.folder / "pytorch_model.bin")
    path.unlink()
    twin = tiny.engine(plain, "eagle2", editable.folder)
    settings = {"max_new_tokens": 8, "temperature": 0}
    for own, other in zip(
        tiny.steps(twin, PROMPTS, **settings), tiny.steps(eagle, PROMPTS, **settings), strict=True
    ):
        assert torch.equal(own.tree.tokens, other.tree.tokens)
        assert torch.equal(own.tree.log_value, other.tree.log_value)


def test_a_saved_head_is_loaded_back_unchanged(eagle: Engine, head: Path, tmp_path: Path) -> None:
    from specdec_plugins.eagle.saving import save_head

    save_head(eagle.parts.drafter.head, tmp_path)
    first, second = (load_file(folder / "model.safetensors") for folder in (head, tmp_path))
    assert first.keys() == second.keys()
    # Heads are read into float32, as they are published.
    assert all(torch.equal(first[name].float(), second[name].float()) for name in first)
    assert (tmp_path / "config.json").read_text() == (head / "config.json").read_text()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_head_that_was_saved_and_loaded_drafts_the_same_to_the_bit(
    plain: Engine, head: Path, tmp_path: Path, dtype: str
) -> None:
    from specdec_plugins.eagle.saving import save_head

    def drafting(folder: Path) -> Engine:
        options = {**tiny.EAGLE2, "drafter": {"checkpoint": str(folder), "dtype": dtype}}
        return plain.with_strategy("eagle2", options=options)

    first = drafting(head)
    save_head(first.parts.drafter.head, tmp_path)
    assert load_file(tmp_path / "model.safetensors")["fc.weight"].dtype == getattr(torch, dtype)
    settings = {"max_new_tokens": 8, "temperature": 0}
    for own, other in zip(
        tiny.steps(first, PROMPTS, **settings),
        tiny.steps(drafting(tmp_path), PROMPTS, **settings),
        strict=True,
    ):
        assert torch.equal(own.tree.tokens, other.tree.tokens)
        assert torch.equal(own.tree.log_value, other.tree.log_value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rope_frequencies_keep_their_precision_whatever_the_dtype(
    plain: Engine, head: Path, dtype: str
) -> None:
    true = plain.with_strategy("eagle2", drafter=head).parts.drafter.head.rotary_emb.inv_freq
    options = {"drafter": {"checkpoint": str(head), "dtype": dtype}}
    cast = plain.with_strategy("eagle2", options=options).parts.drafter.head
    assert cast.fc.weight.dtype == getattr(torch, dtype)
    assert torch.equal(cast.rotary_emb.inv_freq, true)
    assert true.dtype == torch.float32 and not torch.equal(true, true.bfloat16().float())


def test_a_head_with_qkv_bias_needs_no_bias_of_o_proj(
    plain: Engine, model: Any, tmp_path: Path
) -> None:
    folder = tiny.make_head(tmp_path, model, attention_bias=True)
    names = load_file(folder / "model.safetensors").keys()
    biases = {name.split(".")[-2] for name in names if name.endswith("proj.bias")}
    assert biases == {"q_proj", "k_proj", "v_proj"}
    tiny.engine(plain, "eagle2", folder)
    path = Path(folder) / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in fields.items() if k != "qkv_bias"}))
    tiny.engine(plain, "eagle2", folder)


def test_corrupt_and_missing_files_are_told(
    plain: Engine, editable: Editable, tmp_path: Path
) -> None:
    weights = editable.folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not a checkpoint", b""):
        weights.write_bytes(damaged)
        refused(plain, editable.folder, "model.safetensors is corrupt")
    weights.unlink()
    refused(plain, editable.folder, "has no weights", "pytorch_model.bin")
    (editable.folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 broken")
    refused(plain, editable.folder, "pytorch_model.bin")
    (editable.folder / "config.json").write_text("{not json")
    refused(plain, editable.folder, "config.json is no JSON")
    (editable.folder / "config.json").write_text("[]")
    refused(plain, editable.folder, "no JSON object")
    (editable.folder / "config.json").unlink()
    refused(plain, editable.folder, "has no config.json")
    refused(plain, tmp_path / "nowhere" / "at" / "all", "nowhere")
    refused(plain, weights.parent / "..", "has no config.json")


class Payload:
    """Unpickling this would create a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def test_code_in_a_pickle_is_never_run(plain: Engine, editable: Editable, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    (editable.folder / "model.safetensors").unlink()
    for content in (Payload(proof), {"fc.weight": Payload(proof)}):
        torch.save(content, editable.folder / "pytorch_model.bin")
        refused(plain, editable.folder, "could run code when loaded")
        assert not proof.exists()
    torch.save({"fc.weight": "text"}, editable.folder / "pytorch_model.bin")
    refused(plain, editable.folder, "something else than named tensors")


def shards(folder: Path, suffix: str) -> None:
    """Split the weights of a head into two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    places = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        file = f"{stem}-0000{number}-of-00002.{suffix}"
        part = {name: tensors[name] for name in names}
        (save_file if suffix == "safetensors" else torch.save)(part, folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_head_in_shards_equals_its_whole_twin(
    plain: Engine, eagle: Engine, editable: Editable, tmp_path: Path, suffix: str
) -> None:
    shards(editable.folder, suffix)
    twin = tiny.engine(plain, "eagle2", editable.folder).parts.drafter.head.state_dict()
    whole = eagle.parts.drafter.head.state_dict()
    assert twin.keys() == whole.keys()
    assert all(torch.equal(twin[name], whole[name]) for name in whole)
    index = next(editable.folder.glob("*.index.json"))
    fields = json.loads(index.read_text())
    first = next(iter(fields["weight_map"]))
    for place, says in (
        ("../elsewhere", "shards lie beside their index"),
        (f"other.{suffix}", "is not there: is a shard missing?"),
        (3, "no weight_map"),
    ):
        changed = {**fields["weight_map"], first: place}
        index.write_text(json.dumps({"weight_map": changed}))
        refused(plain, editable.folder, says)
    index.write_text(
        json.dumps({"weight_map": {**fields["weight_map"], "x": fields["weight_map"][first]}})
    )
    refused(plain, editable.folder, "names tensors that no shard has: x")


# (config of a checkpoint, names of its tensors, what it is)
KINDS: list[tuple[dict[str, Any], list[str], str]] = [
    ({"speculators_model_type": "peagle"}, [], "a P-EAGLE head"),
    ({"speculators_model_type": "eagle3"}, ["mask_hidden", "fc.weight"], "a P-EAGLE head (it"),
    ({"pard_token": 7}, ["midlayer.hidden_norm.weight"], "a head that drafts several tokens in"),
    ({"speculators_model_type": "dflash"}, [], "a DFlash drafter"),
    ({"speculators_model_type": "mlp"}, [], "an MLP speculator"),
    ({"architectures": ["MLPSpeculatorPreTrainedModel"]}, [], "an MLP speculator"),
    ({"speculators_model_type": "new"}, [], "a draft head of the kind 'new'"),
    (
        {"speculators_model_type": "eagle", "layernorms": True},
        [],
        "an EAGLE-1 head with additional layer norms",
    ),
    (
        {},
        ["fusion_fc.weight", "embedding_layernorm.weight"],
        "an EAGLE-1 head with additional layer norms (speculators' layernorms) (it has "
        "embedding_layernorm.weight)",
    ),
    (
        {"architectures": ["Eagle3DeepseekV2ForCausalLM"]},
        [],
        "an EAGLE-3 head with latent attention (MLA)",
    ),
    (
        {},
        ["layers.0.self_attn.kv_a_proj_with_mqa.weight"],
        "an EAGLE-3 head with latent attention (MLA) (it has layers.0.self_attn.kv_a_proj_with_mqa",
    ),
    ({"medusa_num_heads": 4, "medusa_num_layers": 1}, [], "a set of Medusa heads"),
    (
        {},
        ["0.0.linear.weight", "0.0.linear.bias", "0.1.weight"],
        "a set of Medusa heads (it has 0.0.linear.weight)",
    ),
    ({}, ["medusa_head.0.0.linear.weight"], "a set of Medusa heads (it has medusa_head.0.0"),
    ({"hydra_num_heads": 4, "hydra_num_layers": 1}, [], "a set of Hydra heads"),
    (
        {},
        ["hydra_mlp.0.linear.weight", "hydra_lm_head.0.weight"],
        "a set of Hydra heads (it has hydra_lm_head.0.weight)",
    ),
    (
        {},
        ["base_model.model.layers.0.q_proj.lora_A.weight"],
        "an adapter (LoRA) (it has base_model.model.layers.0.q_proj.lora_A.weight)",
    ),
    (
        {},
        ["model.embed_tokens.weight", "lm_head.weight"],
        "a whole language model, no head (it has model.embed_tokens.weight)",
    ),
]


@pytest.mark.parametrize(("fields", "keys", "kind"), KINDS, ids=lambda v: str(v)[:40])
def test_a_checkpoint_of_another_kind_is_named_for_what_it_is(
    plain: Engine, tmp_path: Path, fields: dict[str, Any], keys: list[str], kind: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 32, **fields}))
    if keys:
        save_file({key: torch.zeros(1) for key in keys}, tmp_path / "model.safetensors")
    refused(plain, tmp_path, f"is {kind}")


def test_a_draft_model_given_for_a_head_is_told_what_takes_it(plain: Engine, draft: Path) -> None:
    refused(plain, draft, "a whole language model, no head (it has model.embed_tokens.weight)")
    refused(plain, draft, "strategy='draft_model' drafts with it")


def test_a_draft_model_of_another_vocabulary_is_refused(plain: Engine, tmp_path: Path) -> None:
    other = tiny.make_model(tiny.llama_config(vocab_size=61))
    folder = tiny.save_model(other, tmp_path / "draft")
    with pytest.raises(CheckpointError, match="61 tokens, the target model one of 60"):
        plain.with_strategy("draft_model", drafter=folder)


def test_a_model_is_loaded_from_its_folder_with_its_tokenizer(
    model: Any, tokenizer: Any, plain: Engine, tmp_path: Path
) -> None:
    tiny.save_model(model, tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = Engine(tmp_path, strategy="plain")
    assert engine.target.dtype == torch.float64
    settings = {"max_new_tokens": 6, "temperature": 0}
    assert engine.generate("ABC", **settings).text == plain.generate("ABC", **settings).text
    assert Engine(tmp_path, strategy="plain", dtype="float32").target.dtype == torch.float32


def test_a_folder_that_is_no_causal_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        Engine(tmp_path, strategy="plain")
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        Engine(tmp_path, strategy="plain")
    with pytest.raises(CheckpointError, match="is a file"):
        Engine(tmp_path / "config.json", strategy="plain")
