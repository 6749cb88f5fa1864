"""EAGLE-3 checkpoints of every layout load to the same network, and each fault is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import heads
import pytest
import tiny
import torch
from heads import LAYERS, LAYOUTS, USUAL, head_for, in_layout, refused, same_trees
from hypothesis import given
from hypothesis import strategies as st
from tiny import PROMPTS

from specdec import Engine
from specdec.errors import CheckpointError
from specdec_plugins.eagle.aux_layers import AuxLayers
from specdec_plugins.eagle.checkpoint import load_head, tensors_of
from specdec_plugins.eagle.draft_tokens import marks, offsets, read_vocabulary
from specdec_plugins.eagle.eagle3_head import Eagle3Head


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_to_the_same_network(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str
) -> None:
    loaded = load_head(in_layout(layout, deep_head).save(tmp_path), deep.target)
    assert isinstance(loaded, Eagle3Head)
    assert loaded.wiring == deep_head.wiring and loaded.aux_layers == USUAL
    assert torch.equal(loaded.vocabulary, deep_head.vocabulary)
    own, other = tensors_of(deep_head), tensors_of(loaded)
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert loaded.config.rope_parameters == deep_head.config.rope_parameters


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_drafts_the_same_trees(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str
) -> None:
    settings = {"max_new_tokens": 6, "temperature": 0}
    options = tiny.EAGLE2
    by_file = deep.with_strategy(
        "eagle3", drafter=in_layout(layout, deep_head).save(tmp_path), options=options
    )
    by_module = deep.with_strategy("eagle3", drafter=deep_head, options=options)
    same_trees(by_file, by_module, **settings)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_missing_tensor_is_named(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str
) -> None:
    heads.each_missing_is_named(in_layout(layout, deep_head), deep, tmp_path, but="t2d")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_misshapen_tensor_and_each_with_nan_or_infinity_is_named(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str
) -> None:
    def misshapen(key: str) -> str:
        name = key.removeprefix("model.")
        return name if name in ("d2t", "t2d") else key

    heads.each_fault_is_named(in_layout(layout, deep_head), deep, tmp_path, misshapen)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", ["layers.1.mlp.up_proj.weight", "extra", "fc.bias2"])
def test_each_surplus_tensor_is_named(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str, key: str
) -> None:
    heads.surplus_is_named(in_layout(layout, deep_head), deep, tmp_path, key)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_head_for_another_target_is_refused(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str
) -> None:
    other = Engine(
        tiny.make_model(tiny.llama_config(num_hidden_layers=LAYERS, hidden_size=48)),
        strategy="plain",
    )
    folder = in_layout(layout, deep_head).save(tmp_path)
    refused(folder, other, "for a target of hidden_size 32, the target model has 48")
    short = Engine(tiny.make_model(tiny.llama_config(num_hidden_layers=3)), strategy="plain")
    says = "reads hidden states [2, 4, 5], the target model has 3 layers"
    if layout in ("official", "angelslim"):
        says = "are [2, 1, 0] for a target of n = 3 layers"
    refused(folder, short, says)


def test_a_tensor_that_is_there_twice_is_refused(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path
) -> None:
    written = in_layout("official", deep_head)
    written.weights["model.fc.weight"] = written.weights["fc.weight"].clone()
    refused(written.save(tmp_path), deep, "model.fc.weight", "the same tensor")


FLAGS: list[tuple[str, dict[str, Any], str]] = [
    ("specforge", {"eagle_config": {"next_layer_regular": False}}, "next_layer_regular=False"),
    ("specforge", {"eagle_config": {"use_mtp_layernorm": True}}, "use_mtp_layernorm=True"),
    ("vllm", {"logit_scale": 0.25}, "logit_scale=0.25: only 1.0 is supported"),
    ("vllm", {"parallel_draft_step": 4}, "parallel_draft_step=4"),
    ("modelopt", {"eagle_config": {"eh_proj_before_attn": True}}, "eh_proj_before_attn=True"),
    ("vllm", {"eagle_config": {"new_trick": 3}}, "eagle_config.new_trick=3, which specdec does"),
    ("vllm", {"eagle_config": {"new_trick": False}}, "eagle_config.new_trick=False, which"),
    ("vllm", {"eagle_config": {"new_factor": 0}}, "eagle_config.new_factor=0, which specdec does"),
    ("speculators", {"new_trick": True}, "new_trick=True, which specdec does not know"),
    ("speculators", {"new_trick": False}, "new_trick=False, which specdec does not know"),
    ("vllm", {"eagle_config": {"eagle_decoder_type": "kimi"}}, "eagle_decoder_type='kimi'"),
    ("vllm", {"norm_output": "yes"}, "norm_output='yes': it must be true or false"),
    ("vllm", {"norm_output": True, "eagle_config": {"norm_output": False}}, "contradicts itself"),
    ("speculators", {"norm_before_residual": None}, "give the option norm_before_residual"),
    ("official", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' is not"),
    ("official", {"rope_scaling": {"rope_type": "longrope"}}, "'longrope' is not supported"),
    ("official", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ("official", {"norm_before_fc": True}, "missing keys: input_norm.weight"),
    ("official", {"fc_norm": True}, "missing keys: fc_norm.0.weight, fc_norm.1.weight"),
    ("vllm", {"attention_bias": True}, "missing keys: layers.0.self_attn.k_proj.bias"),
    ("vllm", {"num_hidden_layers": 2}, "missing keys: layers.1.input_layernorm.weight"),
    ("vllm", {"layer_types": ["sliding_attention"]}, "sliding_window=None"),
    ("vllm", {"eagle_config": {"use_aux_hidden_state": False}}, "unexpected keys: fc.weight"),
    ("vllm", {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 3]}}, "names 2 auxiliary"),
    ("vllm", {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [4, 3, 1]}}, "ascending"),
    ("vllm", {"eagle_config": {"eagle_aux_hidden_state_layer_ids": ["a"]}}, "list of whole"),
    ("vllm", {"hidden_size": None}, "hidden_size=None"),
    ("vllm", {"draft_vocab_size": 44}, "lm_head.weight has shape [45, 32], not [44, 32]"),
    ("speculators", {"transformer_layer_config": None}, "transformer_layer_config=None"),
]


@pytest.mark.parametrize(("layout", "changes", "says"), FLAGS, ids=lambda v: str(v)[:50])
def test_flags_that_do_not_fit_are_named(
    deep: Engine,
    deep_head: Eagle3Head,
    tmp_path: Path,
    layout: str,
    changes: dict[str, Any],
    says: str,
) -> None:
    written = in_layout(layout, deep_head)
    written.fields |= changes
    if layout == "vllm" and "draft_vocab_size" in changes:
        written.weights["d2t"] = written.weights["d2t"][:44]
    refused(written.save(tmp_path), deep, says)


def test_norms_before_fc_that_exclude_each_other_are_refused(deep: Engine, tmp_path: Path) -> None:
    both = head_for(deep.target.model, norm_before_fc=True, fc_norm=True)
    for layout in ("vllm", "speculators"):
        folder = in_layout(layout, both).save(tmp_path / layout)
        refused(folder, deep, "norm_before_fc", "and fc_norm", "exclude each other")


def test_an_option_says_what_the_tensors_do_not_show(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path
) -> None:
    written = in_layout("speculators", deep_head)
    del written.fields["norm_before_residual"]
    folder = written.save(tmp_path)
    for value in (True, False):
        loaded = load_head(folder, deep.target, norm_before_residual=value, norm_output=value)
        assert loaded.wiring == dataclasses.replace(
            deep_head.wiring, norm_before_residual=value, norm_output=value
        )
    given = {"norm_before_residual": True}
    assert load_head(folder, deep.target, aux_layers=(1, 4, 8), **given).aux_layers == (1, 4, 8)
    refused(folder, deep, "the target model has 8 layers", aux_layers=(1, 4, 9), **given)
    refused(folder, deep, "names 2 auxiliary layers", aux_layers=(1, 4), **given)


def test_a_tie_is_believed_where_it_can_be_true(deep: Engine, tmp_path: Path) -> None:
    whole = head_for(deep.target.model, draft_vocab_size=tiny.VOCAB, own_embedding=True)
    written = in_layout("angelslim", whole)
    own = load_head(written.save(tmp_path), deep.target)
    assert torch.equal(own.lm_head.weight, whole.lm_head.weight)
    del written.weights["lm_head.weight"]
    tied = load_head(written.save(tmp_path), deep.target)
    assert torch.equal(tied.lm_head.weight, whole.embed_tokens.weight)
    written.fields["tie_word_embeddings"] = False
    refused(written.save(tmp_path), deep, "missing keys: lm_head.weight")


def test_a_draft_vocabulary_that_is_the_whole_needs_no_map(deep: Engine, tmp_path: Path) -> None:
    whole = head_for(deep.target.model, draft_vocab_size=tiny.VOCAB)
    for layout in ("official", "specforge"):
        written = in_layout(layout, whole)
        assert len(load_head(written.save(tmp_path), deep.target).vocabulary) == tiny.VOCAB
        del written.weights["d2t"], written.weights["t2d"], written.fields["draft_vocab_size"]
        loaded = load_head(written.save(tmp_path), deep.target)
        assert torch.equal(loaded.vocabulary, torch.arange(tiny.VOCAB))


@st.composite
def vocabularies(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    size = draw(st.integers(2, 40))
    chosen = draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size - 1))
    return torch.tensor(sorted(chosen)), size


@given(vocabularies())
def test_offsets_and_marks_give_the_vocabulary_back(drawn: tuple[torch.Tensor, int]) -> None:
    vocabulary, size = drawn
    d2t, t2d = offsets(vocabulary), marks(vocabulary, size)
    assert torch.equal(read_vocabulary(d2t, t2d, len(d2t), size), vocabulary)
    assert torch.equal(read_vocabulary(d2t.int(), t2d.int(), len(d2t), size), vocabulary)
    if len(d2t) < 2 or not bool((d2t[1:] > d2t[:-1]).all()):
        assert torch.equal(read_vocabulary(d2t, None, len(d2t), size), vocabulary)


@given(vocabularies())
def test_token_ids_in_place_of_offsets_are_refused(drawn: tuple[torch.Tensor, int]) -> None:
    vocabulary, size = drawn
    if len(vocabulary) < 2 or torch.equal(vocabulary, offsets(vocabulary)):
        return
    for t2d in (marks(vocabulary, size), None):
        with pytest.raises(CheckpointError, match="d2t"):
            read_vocabulary(vocabulary, t2d, len(vocabulary), size)


@given(vocabularies(), st.data())
def test_marks_of_another_vocabulary_are_refused(
    drawn: tuple[torch.Tensor, int], data: st.DataObject
) -> None:
    vocabulary, size = drawn
    t2d = marks(vocabulary, size)
    t2d[data.draw(st.integers(0, size - 1))] ^= True
    with pytest.raises(CheckpointError, match=r"t2d|d2t"):
        read_vocabulary(offsets(vocabulary), t2d, len(vocabulary), size)


AUX: list[tuple[AuxLayers, int, tuple[int, ...]]] = [
    (AuxLayers((), "usual"), 32, (2, 16, 29)),
    (AuxLayers((), "features"), 32, ()),
    (AuxLayers((1, 15, 28), "layers"), 32, (2, 16, 29)),
    (AuxLayers((2, 16, 29), "layers"), 32, (2, 16, 29)),  # a first 2: indices already
    (AuxLayers((24, 30, 36), "layers"), 36, (24, 30, 36)),  # 36 of 36 can only be an index
    (AuxLayers((4, 20, 40), "layers"), 45, (5, 21, 41)),
    (AuxLayers((2, 10, 18, 26, 34), "indices"), 36, (2, 10, 18, 26, 34)),
    (AuxLayers((3, 4, 36), "option"), 36, (3, 4, 36)),
]


@pytest.mark.parametrize(("said", "layers", "indices"), AUX, ids=lambda v: str(v))
def test_auxiliary_layers_are_indices_of_hidden_states(
    said: AuxLayers, layers: int, indices: tuple[int, ...]
) -> None:
    assert said.indices(layers) == indices


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 6])
def test_the_usual_auxiliary_layers_need_seven(layers: int) -> None:
    with pytest.raises(CheckpointError, match="give the option aux_layers"):
        AuxLayers((), "usual").indices(layers)


FIVE = (1, 3, 4, 6, 8)
NAMING = [each for each in LAYOUTS if each not in ("official", "angelslim")]


@pytest.mark.parametrize("layout", NAMING)
def test_a_head_may_read_more_than_three_hidden_states(
    deep: Engine, tmp_path: Path, layout: str
) -> None:
    five = head_for(deep.target.model, aux_layers=FIVE)
    written = in_layout(layout, five)
    loaded = load_head(written.save(tmp_path), deep.target)
    assert loaded.wiring == five.wiring and loaded.wiring.states == 5
    assert all(torch.equal(x, tensors_of(loaded)[name]) for name, x in tensors_of(five).items())
    engine = deep.with_strategy("eagle3", drafter=tmp_path, options=tiny.EAGLE2)
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0}
    results = engine.generate(PROMPTS, **settings)
    assert [r.token_ids for r in results] == tiny.tokens(deep, PROMPTS, **settings)
    assert tiny.mean_tau(results) > 1.1
    written.weights["fc.weight" if layout != "nemo" else "model.fc.weight"] = torch.zeros(32, 96)
    refused(written.save(tmp_path), deep, "names 5 auxiliary layers [", "reads 3 states")


def test_a_layout_that_names_no_layers_needs_them_for_five_states(
    deep: Engine, tmp_path: Path
) -> None:
    five = head_for(deep.target.model, aux_layers=FIVE)
    folder = in_layout("official", five).save(tmp_path)
    refused(folder, deep, "names 3 auxiliary layers", "reads 5 states")
    assert load_head(folder, deep.target, aux_layers=FIVE).wiring == five.wiring


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_head_of_few_positions_drafts_in_a_longer_text(
    deep: Engine, deep_head: Eagle3Head, tmp_path: Path, layout: str
) -> None:
    written = in_layout(layout, deep_head)
    inner = written.fields.get("transformer_layer_config", written.fields)
    inner["max_position_embeddings"] = 8
    settings: dict[str, Any] = {"max_new_tokens": 24, "temperature": 0}
    few, usual = (
        deep.with_strategy("eagle3", drafter=each, options=tiny.EAGLE2)
        for each in (written.save(tmp_path), deep_head)
    )
    assert few.parts.drafter.head.config.max_position_embeddings == 8  # type: ignore[union-attr]
    assert tiny.tokens(few, PROMPTS, **settings) == tiny.tokens(deep, PROMPTS, **settings)
    same_trees(few, usual, **settings)


def test_several_layers_and_prefixes_are_read(deep: Engine, tmp_path: Path) -> None:
    two = head_for(
        deep.target.model, num_hidden_layers=2, qk_norm=True, own_embedding=True, fc_norm=True,
        norm_before_residual=True, norm_output=True,
    )  # fmt: skip
    for layout in ("speculators", "vllm", "nemo", "deepspec"):
        written = heads.in_layout(layout, two)
        inner = written.fields.get("transformer_layer_config", written.fields)
        inner |= {"num_hidden_layers": 2, "model_type": "qwen3"}
        written.fields |= {"norm_before_residual": True, "norm_output": True}
        loaded = load_head(written.save(tmp_path / layout), deep.target)
        assert loaded.wiring == two.wiring
        own, other = tensors_of(two), tensors_of(loaded)
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], other[name]) for name in own)
