"""Heads of one depth each: what holds of every kind of them."""

from __future__ import annotations

import json
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pages import ROOT
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config

from specdec import Engine
from specdec.errors import CheckpointError
from specdec.models.heads.kind import HeadsKind
from specdec.models.hf_target import HFTarget
from specdec_plugins.hydra import testing as hydra
from specdec_plugins.hydra.checkpoint import HEADS as HYDRA
from specdec_plugins.medusa import testing as medusa
from specdec_plugins.medusa.checkpoint import HEADS as MEDUSA

sys.path.append(str(ROOT / "scripts"))
import make_tiny_heads as tiny_heads

KINDS: dict[str, tuple[HeadsKind[Any], Any, str]] = {
    "medusa": (MEDUSA, medusa.random_heads, "lm_heads."),
    "hydra": (HYDRA, hydra.random_heads, "hydra_lm_head."),
}
PROJECTIONS = ("own", "shared", "target")
every_kind = pytest.mark.parametrize("name", KINDS)


def kind_of(layout: str) -> str:
    """The name of the kind whose layout it is."""
    return layout.partition("-")[0].rstrip("+")


def own_tensors(layout: str, whole: dict[str, Tensor]) -> list[str]:
    """The names of the tensors that the heads need; where every head has many, those of one."""
    own = [key for key in whole if key != "model.norm.weight" and "embed_" not in key]
    few = layout in ("hydra-deep", "hydra++")
    return [key for key in own if not few or ".1." in f".{key}"]


def rewrite(folder: Path, change: Any) -> None:
    """Write the tensors of a folder anew, by names, as ``change`` returns them."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


@every_kind
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("cut", [True, False])
def test_a_token_map_of_any_order_and_type_is_read_as_the_ascending_one(
    plain: Engine, tmp_path: Path, name: str, dtype: torch.dtype, cut: bool
) -> None:
    kind, make, projections = KINDS[name]
    heads = make(plain.target.model, drafted=20)
    kind.save(heads, tmp_path)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))

    def shuffled(key: str, each: Tensor) -> Tensor:
        if key == "token_map":
            return each[order].to(dtype)
        if not key.startswith(projections):
            return each
        if cut:
            return each[order]
        return each.new_ones(tiny.VOCAB, *each.shape[1:]).index_copy(0, heads.vocabulary, each)

    rewrite(tmp_path, lambda found: {key: shuffled(key, each) for key, each in found.items()})
    loaded = kind.load(tmp_path, plain.target)
    assert torch.equal(loaded.vocabulary, heads.vocabulary)
    for key, each in heads.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], each), key


@every_kind
@pytest.mark.parametrize(
    ("token_map", "says"),
    [
        (None, "missing keys: token_map"),
        (torch.ones(20).bool(), "token_map is bool"),
        (torch.arange(20.0), r"token_map is float32 \[20\]: it must hold 20 whole numbers"),
        (torch.arange(19), r"token_map is int64 \[19\]"),
        (torch.arange(20) // 2, "different tokens of 0 to 59"),
        (torch.arange(20) - 1, "different tokens of 0 to 59"),
        (torch.arange(20) + 41, "different tokens of 0 to 59"),
    ],
)
def test_what_is_no_token_map_is_refused_by_name(
    plain: Engine, tmp_path: Path, name: str, token_map: Tensor | None, says: str
) -> None:
    kind, make, _ = KINDS[name]
    kind.save(make(plain.target.model, drafted=20), tmp_path)
    given = {} if token_map is None else {"token_map": token_map}
    rewrite(
        tmp_path, lambda found: {**{k: x for k, x in found.items() if k != "token_map"}, **given}
    )
    with pytest.raises(CheckpointError, match=says):
        kind.load(tmp_path, plain.target)


@every_kind
def test_within_a_whole_model_the_heads_alone_are_read(
    plain: Engine, tmp_path: Path, name: str
) -> None:
    kind, make, _ = KINDS[name]
    heads = make(plain.target.model)
    kind.save(heads, tmp_path)

    def whole(found: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{name}_head.{key}": x for key, x in found.items()} | {
            "norm.weight": torch.ones(3)
        }

    rewrite(tmp_path, whole)
    loaded = kind.load(tmp_path, plain.target)
    for key, each in heads.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], each), key


@pytest.mark.parametrize(
    ("layout", "surplus"),
    [
        ("medusa-pickle", "blocks.0.layers.0.weight"),
        ("medusa-vllm", "0.0.linear.weight"),
        ("medusa-vllm-shared", "lm_heads.1.weight"),
        ("hydra", "hydra_mlp.0.1.linear.weight"),
        ("hydra++", "hydra_mlp.0.0.linear.weight"),
    ],
)
def test_a_name_of_the_other_layout_is_surplus(
    plain: Engine, tmp_path: Path, layout: str, surplus: str
) -> None:
    fields, tensors, file = tiny_heads.make(layout)
    like = torch.ones(tiny_heads.HIDDEN, tiny_heads.HIDDEN)
    folder = tiny_heads.write((fields, {**tensors, surplus: like}, file), tmp_path)
    kind, *_ = KINDS[kind_of(layout)]
    with pytest.raises(CheckpointError, match=f"config.json: unexpected keys: {surplus}$"):
        kind.load(folder, plain.target)


@every_kind
def test_given_heads_that_do_not_fit_or_are_no_numbers_are_refused(
    plain: Engine, name: str
) -> None:
    kind, make, projections = KINDS[name]
    other = make(tiny.make_model(tiny.llama_config(vocab_size=50)))
    with pytest.raises(CheckpointError, match=r"heads that were given: they are for a .* 50"):
        kind.load(other, plain.target)
    lost = make(plain.target.model)
    lost.projections[1].weight.data[3] = float("nan")
    with pytest.raises(CheckpointError, match=rf"given: {projections}1\.weight: values .* NaN"):
        kind.load(lost, plain.target)


@every_kind
def test_given_heads_whose_values_a_dtype_does_not_reach_are_refused(
    plain: Engine, name: str
) -> None:
    kind, make, projections = KINDS[name]
    heads = make(plain.target.model)
    heads.projections[1].weight.data[3] = 1e6
    assert kind.load(heads, plain.target).state_dict()[f"{projections}1.weight"].max() == 1e6
    with pytest.raises(CheckpointError, match=rf"given: {projections}1\.weight: .* float16"):
        kind.load(heads, plain.target, torch.float16)


def test_inspection_says_that_a_target_has_no_layer_like_the_prefix_layer(tmp_path: Path) -> None:
    """It does not raise: what does not fit is what was asked for."""
    folder = tiny_heads.write(tiny_heads.make("hydra++"), tmp_path)
    target = HFTarget(
        tiny.make_model(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=tiny.VOCAB))
    )
    said = HYDRA.describe(folder, target, None)
    assert not said["fits"] and "does not say the sizes of a Llama layer" in said["mismatch"]
    assert said["tensors"].startswith("not compared")
    assert json.dumps(said)


@pytest.mark.parametrize("layout", tiny_heads.LAYOUTS)
def test_what_heads_are_read_from_is_what_is_downloaded_from_the_hub(
    plain: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    import huggingface_hub

    repository = tiny_heads.write(tiny_heads.make(layout), tmp_path / "repository")

    def download(name: str, *, allow_patterns: list[str]) -> str:
        for file in repository.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                (tmp_path / "cache").mkdir(exist_ok=True)
                shutil.copy(file, tmp_path / "cache")
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    kind, *_ = KINDS[kind_of(layout)]
    kind.load("org/heads", plain.target)


@pytest.mark.parametrize("layout", tiny_heads.LAYOUTS)
def test_every_missing_surplus_misshapen_or_nan_tensor_is_refused_by_name(
    plain: Engine, tmp_path: Path, layout: str
) -> None:
    kind, *_ = KINDS[kind_of(layout)]
    fields, whole, name = tiny_heads.make(layout)
    stem = "medusa_head." if layout == "medusa-whole" else ""

    def refused(change: str, tensors: dict[str, Tensor], key: str) -> None:
        folder = tiny_heads.write((fields, tensors, name), tmp_path / change)
        with pytest.raises(CheckpointError, match=key.removeprefix(stem).replace(".", r"\.")):
            kind.load(folder, plain.target)

    for i, key in enumerate(own_tensors(layout, whole)):
        rest = {each: x for each, x in whole.items() if each != key}
        lost = whole[key].clone().double()
        lost.view(-1)[0] = float("nan")
        refused(f"missing{i}", rest, key)
        refused(f"shape{i}", {**rest, key: whole[key][..., :-1].contiguous()}, key)
        refused(f"nan{i}", {**rest, key: lost}, key)
    refused("surplus", {**whole, f"{stem}odd.weight": torch.ones(3)}, "odd.weight")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *(
            ("medusa", {"projection": projection, "drafted": drafted})
            for projection in PROJECTIONS
            for drafted in (None, 20)
        ),
        *(
            ("hydra", {"projection": projection, "drafted": drafted, "prefix": prefix})
            for projection, drafted in (("own", None), ("target", 20))
            for prefix in (False, True)
        ),
    ],
)
def test_saved_heads_are_loaded_back_unchanged(
    plain: Engine, tmp_path: Path, name: str, sizes: dict[str, Any]
) -> None:
    kind, make, _ = KINDS[name]
    made = make(plain.target.model, 2, 2, **sizes)
    kind.save(made, tmp_path)
    loaded = kind.load(tmp_path, plain.target)
    assert loaded.sizes == made.sizes
    assert loaded.state_dict().keys() == made.state_dict().keys()
    for key, each in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], each), key
    assert (loaded.vocabulary is None) == (sizes["drafted"] is None)
    if loaded.vocabulary is not None:
        assert torch.equal(loaded.vocabulary, made.vocabulary)


@pytest.mark.parametrize("policy", ["static_tree", "eagle2", "auto"])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *(("medusa", {"projection": projection}) for projection in PROJECTIONS),
        ("hydra", {"projection": "own", "prefix": False}),
        ("hydra", {"projection": "own", "prefix": True}),
        ("hydra", {"projection": "target", "prefix": True}),
    ],
)
def test_text_is_that_of_plain_decoding_and_drafts_are_accepted(
    plain: Engine, policy: str, name: str, sizes: dict[str, Any]
) -> None:
    _, make, _ = KINDS[name]
    heads = make(plain.target.model, **sizes)
    options = {"policy": tiny.AUTO["policy"]} if policy == "auto" else {}
    engine = plain.with_strategy(name, drafter=heads, policy=policy, options=options)
    taus = []
    for temperature in (0.0, 1.0):
        settings = {"max_new_tokens": 20, "temperature": temperature, "seed": 3}
        own, wanted = (each.generate(tiny.PROMPTS, **settings) for each in (engine, plain))
        assert [each.token_ids for each in own] == [each.token_ids for each in wanted]
        taus += [each.stats.tau for each in own]
    assert sum(taus) / len(taus) > 1.3


@pytest.mark.parametrize("layout", tiny_heads.LAYOUTS)
def test_inspection_says_what_the_heads_are(plain: Engine, tmp_path: Path, layout: str) -> None:
    name = kind_of(layout)
    kind, *_ = KINDS[name]
    folder = tiny_heads.write(tiny_heads.make(layout), tmp_path)
    assert kind.recognises(folder)
    said = kind.describe(folder, plain.target, None)
    assert said["heads"] == tiny_heads.HEADS and said["tensors"] == "complete" and said["fits"]
    found = "vllm" if "vllm" in layout else layout if layout == "hydra++" else name
    assert (said["kind"], said["layout"]) == (f"{name.capitalize()} heads", found)
    assert said["draft_vocab_size"] == kind.read(folder).sizes.draft_vocab_size
    alone = kind.describe(folder, None, None)["tensors"]
    assert alone.startswith("not compared" if layout == "hydra++" else "complete")
