"""Models and drafters that are given as objects: never changed, unwrapped or refused in words."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from tiny import PROMPTS
from torch import nn

from specdec import Engine
from specdec.errors import OptionError, SpecdecError, UnsupportedModelError
from specdec_plugins.eagle.checkpoint import load_head

SETTINGS = {"max_new_tokens": 6, "temperature": 0, "eos_token_id": []}


@pytest.fixture
def given() -> Any:
    """A model of the caller's, as it is while it trains."""
    model = tiny.make_model(tiny.llama_config(attention_dropout=0.5))
    model.config._attn_implementation = "flex_attention"
    model.config.return_dict = False
    return model.train()


def test_a_model_that_was_given_is_not_changed(given: Any) -> None:
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    config = copy.deepcopy(given.config.to_dict())
    for changes in ({}, {"dtype": "bfloat16"}):
        engine = Engine(given, strategy="lookup", **changes)
        engine.generate(PROMPTS, **SETTINGS)
        assert all(module.training for module in given.modules())
        assert not any(module.training for module in engine.target.model.modules())
        assert given.config._attn_implementation == "flex_attention"
        assert given.config.to_dict() == config and given.config.return_dict is False
        assert given.dtype == torch.float64
        assert all(p.requires_grad for p in given.parameters())
        for name, tensor in given.state_dict().items():
            assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])


def test_the_engine_shares_the_weights_of_a_model_that_was_given() -> None:
    model = tiny.make_model()
    engine = Engine(model, strategy="plain")
    own = dict(engine.target.model.named_parameters())
    assert all(own[name] is weight for name, weight in model.named_parameters())
    before = tiny.tokens(engine, PROMPTS, **SETTINGS)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.roll(1, 0))  # as an optimizer would
    after = tiny.tokens(engine, PROMPTS, **SETTINGS)
    assert after != before
    assert after == [tiny.greedy_reference(model, prompt, 6) for prompt in PROMPTS]
    model.train()
    assert tiny.tokens(engine, PROMPTS, **SETTINGS) == after


def test_a_converted_model_is_what_loading_it_so_would_give(tmp_path: Path) -> None:
    model = tiny.make_model(dtype=torch.float32)
    loaded = Engine(tiny.save_model(model, tmp_path), strategy="plain", dtype="bfloat16")
    given = Engine(model, strategy="plain", dtype="bfloat16")
    assert given.target.dtype == torch.bfloat16
    rope = given.target.model.base_model.rotary_emb.inv_freq
    assert torch.equal(rope, model.base_model.rotary_emb.inv_freq)  # not rounded
    assert tiny.tokens(given, PROMPTS, **SETTINGS) == tiny.tokens(loaded, PROMPTS, **SETTINGS)
    alone = weakref.ref(model)
    del model
    gc.collect()
    assert alone() is None  # a copy of its own, so the model can go


def wrapped_by_peft(**changes: Any) -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, init_lora_weights=False, **changes)
    torch.manual_seed(0)
    return peft.get_peft_model(tiny.make_model(), config)


def test_torch_compile_and_data_parallel_are_taken_off() -> None:
    model = tiny.make_model()
    wanted = tiny.tokens(Engine(model, strategy="plain"), PROMPTS, **SETTINGS)
    with pytest.warns(UserWarning, match="compile=True"):
        compiled = Engine(torch.compile(model), strategy="plain")
    in_place = copy.deepcopy(model)
    in_place.compile()
    in_place.forward = torch.compile(in_place.forward)
    for engine in (
        compiled,
        Engine(nn.DataParallel(model), strategy="plain"),
        Engine(in_place, strategy="plain"),
    ):
        assert tiny.tokens(engine, PROMPTS, **SETTINGS) == wanted


@pytest.mark.parametrize("modules", [["q_proj"], ["q_proj", "lm_head"]])
def test_a_model_with_an_adapter_decodes_with_it(modules: list[str]) -> None:
    model = wrapped_by_peft(target_modules=modules)
    engine = Engine(model, strategy="lookup")
    merged = copy.deepcopy(model).merge_and_unload()
    wanted = [tiny.greedy_reference(merged, prompt, 6) for prompt in PROMPTS]
    assert tiny.tokens(engine, PROMPTS, **SETTINGS) == wanted
    assert wanted != tiny.tokens(Engine(tiny.make_model(), strategy="plain"), PROMPTS, **SETTINGS)


def test_an_lm_head_with_an_adapter_drafts_whole_or_says_so(plain: Engine) -> None:
    drafter = wrapped_by_peft(target_modules=["lm_head"])
    engine = plain.with_strategy("draft_model", drafter=drafter, acceptor="match")
    assert tiny.tokens(engine, PROMPTS, **SETTINGS) == tiny.tokens(plain, PROMPTS, **SETTINGS)
    with pytest.raises(OptionError, match="no rows can be taken: leave out vocabulary"):
        few = {"drafter": {"vocabulary": 8}}
        plain.with_strategy("draft_model", drafter=drafter, options=few)


def test_an_adapter_that_does_more_than_its_layers_is_refused() -> None:
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(OptionError, match="virtual tokens"):
        Engine(peft.get_peft_model(tiny.make_model(), config), strategy="plain")


def with_lm_head(tokens: int) -> Any:
    model = tiny.make_model()
    model.lm_head = nn.Linear(32, tokens, bias=False).double()
    return model


def dynamically_quantised() -> Any:
    model = tiny.make_model(dtype=torch.float32)
    return torch.ao.quantization.quantize_dynamic(model, {"lm_head"}, dtype=torch.qint8)


def t5() -> Any:
    config = hf.T5Config(
        d_model=32, d_ff=64, num_layers=1, num_heads=4, vocab_size=60, decoder_start_token_id=0
    )
    return hf.T5ForConditionalGeneration(config)


def bert() -> Any:
    config = hf.BertConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=60,
    )
    return hf.BertLMHeadModel(config)


def classifier() -> Any:
    return hf.LlamaForSequenceClassification(tiny.llama_config(pad_token_id=0))


def offloaded() -> Any:
    model = tiny.make_model()
    model.model.embed_tokens.to("meta")
    return model


NO_MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "a base model": (lambda: hf.LlamaModel(tiny.llama_config()), "no lm_head.*AutoModelForCausal"),
    "a classifier": (classifier, "no lm_head"),
    "an encoder-decoder": (t5, "encoder-decoder"),
    "an encoder": (bert, "both directions"),
    "an offloaded embedding": (offloaded, "offloaded .device_map"),
    "a model without weights": (lambda: tiny.make_model().to("meta"), "not in memory"),
    "a quantised lm_head": (dynamically_quantised, "quantised dynamically"),
    "an lm_head past the embedding": (
        lambda: with_lm_head(70),
        r"scores 70 tokens and its embedding has 60.*resize_token_embeddings\(70\)",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("what", NO_MODELS)
@pytest.mark.parametrize("role", ["target", "drafter"])
def test_what_is_no_causal_language_model_is_told_in_words(
    plain: Engine, what: str, role: str
) -> None:
    make, says = NO_MODELS[what]
    with pytest.raises(UnsupportedModelError, match=says):
        if role == "target":
            Engine(make(), strategy="plain")
        else:
            plain.with_strategy("draft_model", drafter=make())


def test_an_lm_head_shorter_than_the_embedding_is_taken() -> None:
    model = with_lm_head(50)
    got = tiny.tokens(Engine(model, strategy="lookup"), PROMPTS, **SETTINGS)
    assert got == [tiny.greedy_reference(model, prompt, 6) for prompt in PROMPTS]


class Holder:
    """Like a pipeline: an object with a model in it."""

    def __init__(self, model: Any) -> None:
        self.model = model


def test_what_holds_a_model_is_told_where_it_is(model: Any) -> None:
    with pytest.raises(OptionError, match=r"not Holder; this one holds a model: give its \.model"):
        Engine(Holder(model))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="not Linear"):
        Engine(nn.Linear(2, 2))
    with pytest.raises(OptionError, match="not type"):
        Engine(hf.LlamaForCausalLM)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_copied_is_told_in_words() -> None:
    model = tiny.make_model()
    model.generator = (number for number in range(3))
    with pytest.raises(OptionError, match=r"cannot be copied .*folder or hub id"):
        Engine(model, strategy="plain")


@pytest.mark.parametrize("strategy", ["draft_model", "eagle2", "auto"])
def test_a_loaded_model_drafts(plain: Engine, draft: Path, strategy: str) -> None:
    model = hf.AutoModelForCausalLM.from_pretrained(draft).train()
    engine = plain.with_strategy(strategy, drafter=model, acceptor="match")
    by_folder = plain.with_strategy(
        strategy,
        drafter="draft_model",
        acceptor="match",
        options={"drafter": {"checkpoint": str(draft)}},
    )
    assert engine.selection.names == by_folder.selection.names
    results = engine.generate(PROMPTS, **SETTINGS)
    wanted = by_folder.generate(PROMPTS, **SETTINGS)
    assert [r.token_ids for r in results] == [r.token_ids for r in wanted]
    if strategy != "auto":
        assert [r.stats.tau for r in results] == [r.stats.tau for r in wanted]
        assert tiny.mean_tau(results) > 1.2
    assert model.training


def test_a_loaded_head_drafts(plain: Engine, eagle: Engine, head: Path) -> None:
    loaded = load_head(head, plain.target).float().train()
    engine = plain.with_strategy("eagle2", drafter=loaded, options=tiny.EAGLE2)
    results, wanted = (each.generate(PROMPTS, **SETTINGS) for each in (engine, eagle))
    assert [r.token_ids for r in results] == [r.token_ids for r in wanted]
    assert tiny.mean_tau(results) > 1.2
    assert loaded.training and loaded.fc.weight.dtype == torch.float32
    other = tiny.make_model(tiny.llama_config(vocab_size=61))
    with pytest.raises(
        SpecdecError, match="that was given: it is for a target of vocab_size 60, the target"
    ):
        Engine(other, strategy="eagle2", drafter=loaded)


def test_drafters_that_are_none_are_told_in_words(plain: Engine, model: Any) -> None:
    with pytest.raises(OptionError, match="no drafter takes a Linear"):
        plain.with_strategy("eagle2", drafter=nn.Linear(2, 2))
    with pytest.raises(OptionError, match="not int"):
        plain.with_strategy("eagle2", drafter=3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="drafts nothing"):
        plain.with_strategy("plain", drafter=model)
    with pytest.raises(OptionError, match="<LlamaForCausalLM>"):
        plain.with_strategy("eagle2", options={"drafter": {"checkpoint": model}})
