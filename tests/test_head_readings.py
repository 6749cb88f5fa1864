"""What configs of heads say, where tools differ on it, and values that no head has."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from heads import LAYERS, USUAL, Written, head_for, in_layout
from hypothesis import given
from hypothesis import strategies as st

from specdec import Engine
from specdec.errors import CheckpointError
from specdec.models.hf_target import HFTarget
from specdec_plugins.eagle.aux_layers import AuxLayers
from specdec_plugins.eagle.checkpoint import load_head
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.rope import rope_parameters

IDS = "eagle_aux_hidden_state_layer_ids"
Change = Callable[[Written], Any]


def top(**fields: Any) -> Change:
    return lambda written: written.fields.update(fields)


def eagle(**fields: Any) -> Change:
    return lambda written: written.fields.setdefault("eagle_config", {}).update(fields)


def inner(**fields: Any) -> Change:
    return lambda written: written.fields["transformer_layer_config"].update(fields)


def both(*changes: Change) -> Change:
    return lambda written: [change(written) for change in changes]


def ids_at_top(ids: list[int]) -> Change:
    return lambda written: (written.fields.pop("eagle_config"), written.fields.update({IDS: ids}))


def loaded(
    layout: str, head: Eagle3Head, change: Change, folder: Path, target: HFTarget, **flags: Any
) -> Eagle3Head:
    written = in_layout(layout, head)
    change(written)
    found = load_head(written.save(folder), target, **flags)
    assert isinstance(found, Eagle3Head)
    return found


WINDOWS = {"layer_types": ["sliding_attention", "full_attention"] * 4, "sliding_window": 4}
ONE_WINDOW = {"layer_types": ["sliding_attention"], "sliding_window": 4}
# (layout, change of the config, options, what differs from the head that was written)
READ: list[tuple[str, Change, dict[str, Any], dict[str, Any]]] = [
    ("modelopt", eagle(**{IDS: []}), {}, {}),
    ("modelopt", eagle(has_lm_head=False, new_trick=None), {}, {}),
    ("modelopt", eagle(**{IDS: "1,3,4"}), {"aux_layers": (2, 4, 5)}, {}),
    ("vllm", eagle(**{IDS: [4, 3, 1]}), {"aux_layers": (2, 4, 5)}, {}),
    ("vllm", ids_at_top([1, 4, 6]), {}, {"aux_layers": (1, 4, 6)}),
    ("vllm", ids_at_top([2, 4, 5]), {}, {}),
    ("vllm", top(**{IDS: [2, 4, 5]}), {}, {}),
    ("vllm", top(**{IDS: [2, 3, 4]}), {"aux_layers": (2, 4, 5)}, {}),
    ("vllm", both(top(norm_output=False), eagle(norm_output=True)), {"norm_output": True},
     {"norm_output": True}),
    ("specforge", top(norm_output=True), {}, {}),
    ("specforge", top(norm_output=False), {}, {"final_norm": False, "unused_norm": True}),
    ("specforge", top(norm_output=False), {"final_norm": True}, {}),
    ("official", top(attention_bias=True, mlp_bias=True), {}, {}),
    ("specforge", top(**WINDOWS), {}, {}),
    ("official", top(**ONE_WINDOW), {}, {}),
    ("vllm", top(**ONE_WINDOW, use_sliding_window=False), {}, {}),
    ("vllm", top(**WINDOWS, use_sliding_window=False), {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "change", "options", "differs"), READ)
def test_configs_are_read_as_their_tools_mean_them(
    deep: Engine,
    deep_head: Eagle3Head,
    tmp_path: Path,
    layout: str,
    change: Change,
    options: dict[str, Any],
    differs: dict[str, Any],
) -> None:
    found = loaded(layout, deep_head, change, tmp_path, deep.target, **options)
    assert found.wiring == dataclasses.replace(deep_head.wiring, **differs)
    assert getattr(found.config, "sliding_window", None) is None


@pytest.mark.parametrize("kind", [hf.LlamaConfig, hf.Qwen3Config])
def test_what_transformers_writes_into_every_config_of_such_layers_is_of_no_account(
    deep: Engine, tmp_path: Path, kind: Any
) -> None:
    qwen3 = kind is hf.Qwen3Config
    own = head_for(deep.target.model, qk_norm=qwen3)
    sizes = in_layout("speculators", own).fields["transformer_layer_config"]
    rope = {"rope_theta": sizes["rope_theta"], "rope_type": "default"}
    whole = kind(**{**sizes, "rope_parameters": rope}).to_dict()
    assert whole["model_type"] == ("qwen3" if qwen3 else "llama") and len(whole) > 20
    generation = hf.GenerationConfig(do_sample=True, top_k=50, max_length=20).to_diff_dict()
    for change in (inner(**whole), inner(**generation), inner(pretraining_tp=2, use_cache=True)):
        found = loaded("speculators", own, both(inner(**whole), change), tmp_path, deep.target)
        assert found.wiring == own.wiring and isinstance(found.config, kind)


def test_without_a_final_norm_the_lm_head_reads_the_output_itself(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path
) -> None:
    found = loaded("specforge", deep_head, top(norm_output=False), tmp_path, deep.target)
    outputs = torch.randn(1, 3, 32, dtype=torch.float64)
    assert torch.equal(found.logits(outputs), found.lm_head(outputs))


REFUSED: list[tuple[str, Change, str]] = [
    ("vllm", top(**{IDS: [1, 3, 4]}), "contradicts itself"),
    ("vllm", top(**WINDOWS), "layer_types for 8 layers, the head has 1"),
    ("official", top(hidden_act="foo"), "hidden_act='foo'"),
    ("official", top(num_attention_heads=0), "num_attention_heads=0"),
    ("official", top(num_attention_heads=-4), "num_attention_heads=-4"),
    ("official", top(hidden_size=0), "hidden_size=0"),
    ("official", top(hidden_size=32.0), "hidden_size=32.0"),
    ("official", top(num_key_value_heads=3), "num_key_value_heads=3"),
    ("official", top(head_dim=None, num_attention_heads=24), "num_attention_heads=24"),
    ("vllm", top(num_hidden_layers=-1), "num_hidden_layers=-1"),
    ("official", top(draft_vocab_size="45"), "draft_vocab_size='45'"),
    ("official", top(draft_vocab_size=-1), "draft_vocab_size=-1"),
    ("official", top(target_hidden_size="32"), "target_hidden_size='32'"),
    ("official", top(target_hidden_size=[32]), "target_hidden_size=[32]"),
    ("official", top(rope_theta="abc"), "rope_theta='abc'"),
    ("official", top(rope_theta=-1), "rope_theta=-1"),
    ("official", top(rms_norm_eps="1e-5"), "rms_norm_eps='1e-5'"),
    ("official", top(architectures=5), "architectures=5"),
    ("specforge", top(architectures="LlamaForCausalLMEagle3"), "architectures='LlamaFor"),
    ("vllm", top(layer_types=3, sliding_window=4), "layer_types=3"),
    ("vllm", top(eagle_config=[1]), "eagle_config=[1]"),
    ("speculators", inner(hidden_size="x"), "transformer_layer_config.hidden_size='x'"),
    ("speculators", inner(logit_scale=0.25), "transformer_layer_config.logit_scale=0.25: only 1.0"),
    (
        "speculators",
        inner(attention_multiplier=0.5),
        "attention_multiplier=0.5, which specdec does",
    ),
    (
        "speculators",
        inner(new_trick=True),
        "transformer_layer_config.new_trick=True, which specdec",
    ),
    ("speculators", inner(new_trick=False), "transformer_layer_config.new_trick=False, which"),
    ("speculators", inner(new_factor=0), "transformer_layer_config.new_factor=0, which specdec"),
    ("speculators", inner(quantization_config={}), "transformer_layer_config.quantization_config"),
    ("speculators", inner(model_type="gemma2"), "model_type='gemma2': an EAGLE-3 head has layers"),
    ("speculators", inner(model_type="llama4_text"), "transformer_layer_config.model_type='llama4"),
    ("speculators", inner(model_type="qwen3"), "missing keys: layers.0.self_attn.k_norm.weight"),
    (
        "speculators",
        inner(use_sliding_window=True, max_window_layers=0),
        "say by layer_types which",
    ),
    ("speculators", top(transformer_layer_architecture="GemmaLayer"), "'GemmaLayer': only 'Llama"),
    ("vllm", top(quantization_config={"quant_method": "fp8"}), "quantization_config={"),
    ("official", top(rope_scaling={"type": "linear", "factor": "2"}), "factor='2'"),
    ("official", top(rope_scaling={"type": "linear"}), "factor=None"),
    ("official", top(rope_scaling={"rope_type": "yarn", "factor": None}), "factor=None"),
    ("official", top(rope_scaling=[1]), "rope_scaling=[1]"),
]


@pytest.mark.parametrize(("layout", "change", "says"), REFUSED)
def test_values_that_no_head_has_are_refused_by_name(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str, change: Change, says: str
) -> None:
    with pytest.raises(CheckpointError) as error:
        loaded(layout, deep_head, change, tmp_path, deep.target)
    assert says in str(error.value)


FIELDS = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "num_hidden_layers", "vocab_size", "rms_norm_eps", "rope_theta", "model_type",
    "draft_vocab_size", "architectures", "eagle_config", "norm_before_residual", "norm_output",
    "target_hidden_size", "hidden_act", "layer_types", "rope_scaling", "rope_parameters",
    "num_aux_hidden_states", "tie_word_embeddings", "speculators_model_type",
)  # fmt: skip
ODDITIES: tuple[Any, ...] = ("x", "", 0, -1, 1.5, 1e400, True, [], ["x"], [1], {}, {"a": [1]})


@pytest.mark.parametrize("name", FIELDS)
def test_whatever_a_field_holds_the_head_is_read_or_refused(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, name: str
) -> None:
    for value in ODDITIES:
        with contextlib.suppress(CheckpointError):
            loaded("vllm", deep_head, top(**{name: value}), tmp_path, deep.target)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.complex64])
def test_tensors_that_are_quantised_or_no_numbers_are_named(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, dtype: torch.dtype
) -> None:
    def change(written: Written) -> None:
        written.weights["fc.weight"] = written.weights["fc.weight"].to(dtype)

    with pytest.raises(CheckpointError, match=r"fc\.weight is .*, quantised or no numbers"):
        loaded("vllm", deep_head, change, tmp_path, deep.target)


@pytest.mark.parametrize("name", ["d2t", "t2d"])
def test_draft_vocabularies_are_whole_numbers(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, name: str
) -> None:
    def change(written: Written) -> None:
        written.weights[name] = written.weights[name].to(torch.complex64)

    with pytest.raises(CheckpointError, match=f"{name} is complex64"):
        loaded("vllm", deep_head, change, tmp_path, deep.target)


@pytest.mark.parametrize("value", [1e300, 1e6])
def test_values_that_the_dtype_does_not_reach_are_named(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, value: float
) -> None:
    def change(written: Written) -> None:
        written.weights["fc.weight"][0, 0] = value

    with pytest.raises(CheckpointError, match=r"fc\.weight: values that float16 does not reach"):
        loaded("vllm", deep_head, change, tmp_path, deep.target, dtype=torch.float16)


def test_weights_are_cast_once(deep: Engine, deep_head: Eagle3Head, tmp_path: Path) -> None:
    """A head in float32 of a target in bfloat16 has the weights of its file."""
    folder = in_layout("vllm", deep_head).save(tmp_path)
    coarse = Engine(
        tiny.make_model(tiny.llama_config(num_hidden_layers=LAYERS)).bfloat16(), strategy="plain"
    )
    for checkpoint in (str(folder), deep_head):
        options = {"drafter": {"checkpoint": checkpoint, "dtype": "float32"}}
        own = coarse.with_strategy("eagle3", options=options).parts.drafter.head
        assert torch.equal(own.lm_head.weight, deep_head.lm_head.weight.float())


def test_loaded_heads_are_checked_as_files_are(deep: Engine) -> None:
    model = deep.target.model
    outside, nan, narrow = head_for(model), head_for(model), head_for(model, aux_layers=())
    outside.vocabulary = torch.arange(45) + 100
    nan.lm_head.weight.data[0, 0] = float("nan")
    narrow.wiring = dataclasses.replace(narrow.wiring, fc=False, target_hidden_size=16)
    for wrong, says in (
        (outside, "its vocabulary must be 45 tokens"),
        (nan, "lm_head.weight: values that are NaN"),
        (narrow, "it has no fc"),
    ):
        with pytest.raises(CheckpointError, match=says):
            deep.with_strategy("eagle3", drafter=wrong)


def test_a_head_without_fc_has_the_targets_width(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path
) -> None:
    change = both(eagle(use_aux_hidden_state=False), top(hidden_size=48, target_hidden_size=32))
    with pytest.raises(CheckpointError, match=r"no fc\.weight .*must be that of the target, 32"):
        loaded("vllm", deep_head, change, tmp_path, deep.target)


ODD = (
    {"norm_output": True},
    {"norm_before_residual": True},
    {"logit_scale": 0.25},
    {"layer_types": ["sliding_attention"], "sliding_window": 4},
    {"quantization_config": {"quant_method": "fp8"}},
)


@pytest.mark.parametrize("fields", ODD)
def test_flags_that_an_eagle_head_does_not_have_are_refused(
    plain: Engine, tmp_path: Path, fields: dict[str, Any]
) -> None:
    folder = Path(tiny.make_head(tmp_path, plain.target.model))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(CheckpointError, match=next(iter(fields))):
        load_head(folder, plain.target)


KINDS = (
    {"rope_type": "default", "rope_theta": 5e5},
    {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    {"rope_type": "yarn", "factor": 8.0, "rope_theta": 1e6},
)


@pytest.mark.parametrize("rope", KINDS)
def test_a_rope_is_the_same_however_it_is_written(rope: dict[str, Any]) -> None:
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    apart = {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    assert rope_parameters({"rope_parameters": rope}) == rope_parameters(apart) == rope
    assert rope_parameters({**apart, "rope_parameters": rope}) == rope
    of_types = {"full_attention": rope, "sliding_attention": {**rope, "rope_theta": 123.0}}
    assert rope_parameters({"rope_parameters": of_types}) == rope
    windows = rope_parameters({"rope_parameters": of_types}, ["sliding_attention"])
    assert windows["rope_theta"] == 123.0
    with pytest.raises(CheckpointError, match="one rope for all its layers"):
        rope_parameters({"rope_parameters": of_types}, ["sliding_attention", "full_attention"])
    with pytest.raises(CheckpointError, match="contradicts itself"):
        other = {"rope_type": "linear", "factor": 3.0}
        rope_parameters({"rope_parameters": rope, "rope_scaling": other})


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5, unique=True), st.integers(1, 61))
def test_what_is_known_without_the_target_is_what_the_target_gives(
    ids: list[int], layers: int
) -> None:
    """But for the usual three of another target than this one."""
    for source in ("layers", "indices"):
        aux = AuxLayers(tuple(sorted(ids)), source)  # type: ignore[arg-type]
        alone = aux.indices(None)
        if alone is None or max(alone) > layers:
            continue
        assert aux.indices(layers) == alone


def test_ids_whose_last_may_be_the_number_of_layers_wait_for_the_target() -> None:
    aux = AuxLayers((24, 30, 36), "layers")
    assert aux.indices(None) is None
    assert (aux.indices(36), aux.indices(40)) == ((24, 30, 36), (25, 31, 37))
    assert AuxLayers((1, 3, 4), "layers").indices(None) == USUAL
