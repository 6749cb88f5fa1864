"""Entries of heads' configs that nobody knows or that contradict others are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from heads import EAGLE_LAYOUTS, LAYOUTS, Written, eagle_in_layout, head_for, in_layout, refused

from specdec import Engine
from specdec.errors import CheckpointError, OptionError
from specdec_plugins.eagle.checkpoint import load_head
from specdec_plugins.eagle.eagle3_head import Eagle3Head
from specdec_plugins.eagle.head import EagleHead
from specdec_plugins.eagle.inspection import HEADS
from specdec_plugins.eagle.overrides import CheckpointOptions

INNER = "transformer_layer_config"
IDS = "eagle_aux_hidden_state_layer_ids"


@pytest.fixture
def eagle_head(plain: Engine, head: Path) -> EagleHead:
    found = load_head(head, plain.target)
    assert isinstance(found, EagleHead)
    return found


def of_decoder(written: Written) -> dict[str, Any]:
    """The part of its config that describes the decoder layers."""
    found: dict[str, Any] = written.fields.get(INNER, written.fields)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_unknown_entry_is_refused_by_its_name_in_every_layout_unless_it_is_ignored(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str
) -> None:
    for value in (True, False, 0, 3, "on", [1], {"a": 1}):
        written = in_layout(layout, deep_head)
        written.fields["new_trick"] = value
        folder = written.save(tmp_path)
        says = f"config.json has new_trick={value!r}, which specdec does not know"
        refused(folder, deep, says, 'take it out, or give the option ignore=["new_trick"]')
        assert load_head(folder, deep.target, ignore=["new_trick"]).aux_layers
    written.fields["new_trick"] = None
    assert load_head(written.save(tmp_path), deep.target).aux_layers


@pytest.mark.parametrize("layout", EAGLE_LAYOUTS)
def test_an_unknown_entry_of_an_eagle_head_is_refused_unless_it_is_ignored(
    plain: Engine, eagle_head: EagleHead, tmp_path: Path, layout: str
) -> None:
    written = eagle_in_layout(layout, eagle_head)
    written.fields["new_trick"] = True
    folder = written.save(tmp_path)
    refused(folder, plain, "new_trick=True, which specdec does not know")
    assert load_head(folder, plain.target, ignore=("new_trick",)).fc.bias is not None


@pytest.mark.parametrize(
    "layout", [each for each in LAYOUTS if each not in ("official", "angelslim", "deepspec")]
)
def test_words_of_another_layout_are_unknown(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str
) -> None:
    for word in (
        "ttt_length",
        "cla_share_factor",
        "bias" if layout == "speculators" else "layernorms",
    ):
        written = in_layout(layout, deep_head)
        written.fields[word] = True
        refused(written.save(tmp_path), deep, f"{word}=True, which specdec does not know")


TARGETS = (
    hf.LlamaConfig,
    hf.MistralConfig,
    hf.MixtralConfig,
    hf.Qwen2Config,
    hf.Qwen3Config,
    hf.Qwen3MoeConfig,
    hf.Gemma2Config,
    hf.GraniteConfig,
    hf.OlmoConfig,
)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("layout", ["official", "angelslim", "specforge"])
def test_a_copy_of_a_targets_config_loads(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str, kind: Any
) -> None:
    whole = {**kind().to_dict(), "_commit_hash": "0", "im_start_id": 4, "torch_dtype": "bfloat16"}
    for name in ("rope_parameters", "hidden_act", "max_position_embeddings"):
        whole.pop(name, None)
    for model_type in (kind.model_type, "llama"):
        written = in_layout(layout, deep_head)
        written.fields = {**whole, **written.fields, "model_type": model_type}
        assert load_head(written.save(tmp_path), deep.target).aux_layers == deep_head.aux_layers


def test_words_of_published_configs_load(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path
) -> None:
    """Of AngelSlim's for Hunyuan and for models of images, of DeepSpec's, of the official ones, of
    targets with code of their own."""
    words: dict[str, dict[str, Any]] = {
        "angelslim": {
            "add_classification_head": False,
            "attention_head_dim": 128,
            "cla_share_factor": 2,
            "class_num": 0,
            "dense_list": [4096, 0],
            "eod_token_id": 7,
            "image_token_id": 5,
            "im_newline_id": 11,
            "modal_type": "VLM",
            "norm_type": "rms",
            "org_vocab_size": 60,
            "pool_type": "last",
            "rope_scaling": {
                "type": "default",
                "rope_type": "default",
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
            },
            "target_model_type": "qwen3_vl",
            "use_cla": False,
            "use_qk_norm": True,
            "use_rotary_pos_emb": True,
        },
        "deepspec": {
            "draft_num_hidden_layers": 1,
            "num_target_layers": 8,
            "step_loss_decay": 0.8,
            "target_model_name_or_path": "org/model",
            "ttt_length": 7,
        },
        "official": {"max_sequence_length": 2048, "pad_token_id": 0, "pretraining_tp": 1},
        "specforge": {"decoder_sparse_step": 1, "rope_scaling": {"type": "mrope"}},
        "vllm": {
            "cache_implementation": "hybrid",
            "ep_size": 1,
            "experts_per_token": 4,
            "initial_context_length": 4096,
            "moe_layer_freq": 1,
            "rope_local_base_freq": 10000,
            "rope_scaling": {"rope_type": "default", "factor": 1.0},
            "scoring_func": "sigmoid",
            "sliding_window_pattern": 6,
            "topk_method": "noaux_tc",
        },
    }
    for layout, more in words.items():
        written = in_layout(layout, deep_head)
        written.fields |= more
        assert load_head(written.save(tmp_path / layout), deep.target).aux_layers


def test_entries_within_others_are_ignored_by_their_path(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path
) -> None:
    written = in_layout("vllm", deep_head)
    written.fields["eagle_config"] |= {"new_trick": 1}
    written.fields |= {"rope_scaling": {"type": "linear", "factor": 2.0, "weird": 3}, "other": 0}
    folder = written.save(tmp_path)
    refused(folder, deep, 'give the option ignore=["eagle_config.new_trick"]')
    names = ["eagle_config.new_trick", "rope_scaling.weird", "other"]
    loaded = load_head(folder, deep.target, ignore=names)
    assert loaded.config.rope_parameters["factor"] == 2.0
    for name in ("nothing", "eagle_config.nothing", "vocab_size.x", "nothing.new_trick"):
        refused(folder, deep, f"config.json has no {name}, which the option ignore", ignore=[name])


def test_what_is_ignored_is_an_option_of_the_drafter_and_of_inspection(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path
) -> None:
    written = in_layout("official", deep_head)
    written.fields["new_trick"] = 1
    folder, ignore = written.save(tmp_path), {"ignore": ["new_trick"]}
    with pytest.raises(CheckpointError, match="new_trick=1"):
        deep.with_strategy("eagle3", drafter=folder)
    options = {"drafter": ignore, **tiny.EAGLE2}
    assert deep.with_strategy("eagle3", drafter=folder, options=options)
    with pytest.raises(OptionError, match=r"drafter\.ignore: the head that was given is loaded"):
        deep.with_strategy("eagle3", drafter=deep_head, options={"drafter": ignore})
    assert HEADS.recognises(folder), "whatever its flags"
    said = HEADS.describe(folder, deep.target, CheckpointOptions(ignore=("new_trick",)))
    assert said["fits"] and said["tensors"] == "complete"


# (layout, changes of the config, of those of the decoder layers, what the error says)
CONTRADICTIONS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("vllm", {"num_aux_hidden_states": 5}, {}, "num_aux_hidden_states=5, and fc.weight reads 3 st"),
    ("vllm", {"eagle_config": {"num_aux_hidden_states": 2}}, {}, "eagle_config.num_aux_hidden_s"),
    ("vllm", {"bias": True}, {}, 'missing keys: fc.bias. config.json says "bias": true'),
    ("nemo", {"bias": True}, {}, "missing keys: model.fc.bias. config.json says"),
    ("speculators", {"fusion_bias": True}, {}, 'fc.bias. config.json says "fusion_bias": true'),
    ("speculators", {"layernorms": True}, {}, "layernorms=True: only False is supported"),
    ("speculators", {"target_vocab_size": 61}, {}, f"target_vocab_size=61, {INNER}.vocab_size=60"),
    ("vllm", {"qkv_bias": None, "attention_bias": True}, {}, "missing keys: layers.0.self_attn.k_"),
    ("deepspec", {"draft_num_hidden_layers": 2}, {}, "hidden_layers=1, draft_num_hidden_layers=2"),
    *(
        (layout, {}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, says)
        for layout in LAYOUTS
        for says in ["rope_theta=10000.0, rope_parameters.rope_theta=500000.0"]
    ),
    *(
        (layout, {}, {"use_sliding_window": True, **more}, "and no layer_types: say by layer_types")
        for layout in ("speculators", "modelopt", "deepspec", "nemo", "vllm")
        for more in ({"sliding_window": 4}, {"sliding_window": 4, "max_window_layers": 0})
    ),
]


@pytest.mark.parametrize(
    ("layout", "changes", "of_layers", "says"), CONTRADICTIONS, ids=lambda v: str(v)[:50]
)
def test_a_config_that_contradicts_itself_or_the_tensors_is_refused_with_both_values(
    deep: Engine,
    deep_head: Eagle3Head,
    tmp_path: Path,
    layout: str,
    changes: dict[str, Any],
    of_layers: dict[str, Any],
    says: str,
) -> None:
    written = in_layout(layout, deep_head)
    written.fields |= changes
    of_decoder(written).update(of_layers)
    refused(written.save(tmp_path), deep, says)


def test_entries_that_agree_load(deep: Engine, deep_head: Eagle3Head, tmp_path: Path) -> None:
    written = in_layout("vllm", deep_head)
    theta = written.fields["rope_theta"]
    written.fields |= {
        "num_aux_hidden_states": 3,
        "bias": False,
        "rope_parameters": {"rope_theta": theta},
        "use_sliding_window": True,
        "max_window_layers": 1,
    }
    assert load_head(written.save(tmp_path), deep.target).wiring == deep_head.wiring
    written = in_layout("speculators", deep_head)
    written.fields |= {"layernorms": False, "fusion_bias": False, "target_vocab_size": tiny.VOCAB}
    assert load_head(written.save(tmp_path), deep.target).wiring == deep_head.wiring


def test_a_bias_of_fc_is_read_where_config_and_tensors_have_it(
    deep: Engine, tmp_path: Path
) -> None:
    own = head_for(deep.target.model, biases=frozenset({"fc"}))
    for layout, name in (("vllm", "bias"), ("speculators", "fusion_bias")):
        written = in_layout(layout, own)
        for value in (True, None):
            written.fields[name] = value
            loaded = load_head(written.save(tmp_path / layout), deep.target)
            assert loaded.wiring == own.wiring
            assert torch.equal(loaded.fusion.fc.bias, own.fusion.fc.bias)
        written.fields[name] = False
        refused(written.save(tmp_path / layout), deep, "unexpected keys: fc.bias", f'"{name}": fal')


@pytest.mark.parametrize(
    ("layout", "changes", "of_layers", "says"),
    [
        ("official", {"target_hidden_size": 48}, {}, "hidden_size=32, target_hidden_size=48"),
        ("official", {"fusion_bias": True}, {}, "fusion_bias=True, which specdec does not know"),
        ("official", {"use_sliding_window": True}, {}, "max_window_layers=None and no layer_types"),
        ("speculators", {}, {"attention_bias": True}, "missing keys: transformer.self_attn.k_proj"),
        ("speculators", {}, {"mlp_bias": True}, f"{INNER}.mlp_bias=True: only False is supported"),
    ],
    ids=lambda v: str(v)[:50],
)
def test_the_same_of_an_eagle_head(
    plain: Engine,
    eagle_head: EagleHead,
    tmp_path: Path,
    layout: str,
    changes: dict[str, Any],
    of_layers: dict[str, Any],
    says: str,
) -> None:
    written = eagle_in_layout(layout, eagle_head)
    written.fields |= changes
    of_decoder(written).update(of_layers)
    refused(written.save(tmp_path), plain, says)


def test_an_eagle3_head_with_a_surplus_norm_is_not_called_another_kind(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path
) -> None:
    written = in_layout("official", deep_head)
    written.weights["embedding_layernorm.weight"] = torch.zeros(32)
    refused(written.save(tmp_path), deep, "unexpected keys: embedding_layernorm.weight")
