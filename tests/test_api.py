"""The public face: prompt forms, results, streaming and the numbers that come with them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from tiny import PROMPTS

import specdec
from specdec import Engine, GenerationResult
from specdec.request.detokenizer import Detokenizer, cut

SETTINGS = {"max_new_tokens": 8, "temperature": 0, "eos_token_id": []}


def test_every_form_of_one_prompt_gives_the_same_tokens(eagle: Engine, tokenizer: Any) -> None:
    text = "ABCDE"
    ids = tokenizer(text)["input_ids"]
    wanted = tiny.tokens(eagle, ids, **SETTINGS)
    for form in (text, tuple(ids), torch.tensor(ids), torch.tensor(ids, dtype=torch.int32)):
        result = eagle.generate(form, **SETTINGS)
        assert isinstance(result, GenerationResult)
        assert result.token_ids == wanted
        assert result.prompt_tokens == 5
    for form in (tokenizer(text), {"input_ids": torch.tensor(ids)}):
        assert eagle.generate(form, **SETTINGS).token_ids == wanted


def test_messages_go_through_the_chat_template(eagle: Engine, tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "ABC"}]
    ids = [2, 4, 5, 6, 3]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids
    wanted = tiny.tokens(eagle, ids, **SETTINGS)
    assert eagle.generate(messages, **SETTINGS).token_ids == wanted
    assert [r.token_ids for r in eagle.generate([messages], **SETTINGS)] == [wanted]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tensors", ["pt", None])
def test_every_form_of_a_batch_gives_the_same_tokens(
    eagle: Engine, tokenizer: Any, side: str, tensors: str | None
) -> None:
    texts = ["ABCDE", "X", "GHI"]
    wanted = [tiny.tokens(eagle, text, **SETTINGS) for text in texts]
    padding = copy.deepcopy(tokenizer)
    padding.padding_side = side
    encoded = padding(texts, padding=True, return_tensors=tensors)
    rows = [tokenizer(text)["input_ids"] for text in texts]
    mixed = [texts[0], rows[1], torch.tensor(rows[2])]
    for form in (encoded, texts, rows, mixed):
        results = eagle.generate(form, **SETTINGS)
        assert [r.token_ids for r in results] == wanted


def test_a_batch_of_one_is_still_a_batch(eagle: Engine) -> None:
    for form in (torch.tensor([PROMPTS[2]]), [PROMPTS[2]], ["ABC"]):
        results = eagle.generate(form, **SETTINGS)
        assert isinstance(results, list) and len(results) == 1


def test_a_result_has_text_tokens_reason_and_name(eagle: Engine, tokenizer: Any) -> None:
    result = eagle.generate("ABC", **SETTINGS)
    assert result.text == tokenizer.decode(result.token_ids, skip_special_tokens=True)
    assert str(result) == result.text
    assert result.finish_reason == "length"
    assert result.strategy == "eagle2"
    assert result.stats.lossless
    with pytest.raises(AttributeError):
        result.text = "other"  # type: ignore[misc]


def test_without_a_tokenizer_there_are_tokens_but_no_text(model: Any) -> None:
    result = Engine(model, strategy="plain").generate(PROMPTS[0], max_new_tokens=3)
    assert result.text is None
    assert str(result) == str(result.token_ids)


@pytest.mark.parametrize("stop", [(), ("cde", "Zab"), ("q",)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_streamed_pieces_add_up_to_the_text(
    dynamic: Engine, stop: tuple[str, ...], temperature: float
) -> None:
    settings = {"max_new_tokens": 25, "temperature": temperature, "seed": 3, "stop": list(stop)}
    stream = dynamic.stream("ABC", **settings)
    pieces = list(stream)
    whole = dynamic.generate("ABC", **settings)
    assert "".join(pieces) == whole.text == stream.result.text
    assert stream.result.token_ids == whole.token_ids
    assert len(pieces) > 1 or stop
    assert all(pieces)


@pytest.fixture(scope="module")
def byte_tokenizer() -> Any:
    """Byte-level: one character may take several tokens."""
    import tokenizers as tk

    vocab = {piece: i for i, piece in enumerate(sorted(tk.pre_tokenizers.ByteLevel.alphabet()))}
    inner = tk.Tokenizer(tk.models.BPE(vocab, []))
    inner.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tk.decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner)


@given(text=st.text(max_size=8), stop=st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_streamed_text_is_never_taken_back(byte_tokenizer: Any, text: str, stop: Any) -> None:
    detokenizer, given_out = Detokenizer(byte_tokenizer), ""
    for token in byte_tokenizer(text)["input_ids"]:
        ended = detokenizer.push(token, stop)
        assert ended == any(s in detokenizer.text for s in stop)
        ready = cut(detokenizer.streamable(stop), stop)
        assert ready.startswith(given_out)
        given_out = ready
        if ended:
            break
    final = cut(detokenizer.text, stop)
    assert final.startswith(given_out)
    assert final == cut(text, stop)


def test_strategies_share_one_loaded_model(plain: Engine, eagle: Engine, head: Path) -> None:
    again = eagle.with_strategy("chain", drafter=head)
    assert again.target.model is eagle.target.model is plain.target.model
    assert again.strategy.name == "chain" and eagle.strategy.name == "eagle2"
    assert eagle.generate(PROMPTS[0], **SETTINGS).strategy == "eagle2"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", ["eagle2", "eagle2+draft_model", "chain", "draft_model"])
def test_stats_agree_with_the_steps(
    plain: Engine, head: Path, draft: Path, name: str, temperature: float
) -> None:
    engine = tiny.engine(plain, name, head if tiny.needs_head(name) else draft)
    generation = engine.session().start(
        PROMPTS, max_new_tokens=20, temperature=temperature, seed=2, eos_token_id=[29, 7]
    )
    steps = list(generation)
    for row, result in enumerate(generation.results()):
        own = [step for step in steps if step.new_tokens[row]]
        stats = result.stats
        assert stats.new_tokens == len(result.token_ids)
        assert stats.target_forwards == len(own)
        assert stats.tau * stats.target_forwards == pytest.approx(stats.new_tokens)
        assert stats.accepted_tokens == sum(step.accepted[row] for step in own)
        # Every step adds its accepted drafts and a bonus token, unless a stop rule cut it short.
        full = [s for s in own if s.finish_reasons[row] is None]
        assert sum(s.accepted[row] + 1 for s in full) == sum(len(s.new_tokens[row]) for s in full)
        for step in own:
            length, tree = int(step.acceptance.length[row]), step.tree
            end = int(step.acceptance.path[row, length - 1]) if length else 0
            below = ((tree.parents[row] == end) & tree.valid[row]).any()
            assert step.tried[row] == min(length + int(below), len(step.new_tokens[row]))
        for depth, rate in enumerate(stats.alpha):
            tried = sum(step.tried[row] > depth for step in own)
            taken = sum(step.accepted[row] > depth for step in own)
            assert rate == pytest.approx(taken / tried)
            assert 0 <= rate <= 1
    total = generation.metrics.stats()
    assert total.new_tokens == sum(len(r.token_ids) for r in generation.results())
    assert total.draft_forwards > 0
    phases = {k: v for k, v in total.seconds.items() if k != "total"}
    assert sum(phases.values()) == pytest.approx(total.seconds["total"], rel=0.05, abs=1e-3)
    assert total.tokens_per_second > 0


def test_plain_decoding_has_a_tau_of_one(plain: Engine) -> None:
    stats = plain.generate(PROMPTS[0], **SETTINGS).stats
    assert stats.tau == 1 and stats.alpha == () and stats.draft_forwards == 0


def test_the_models_generation_config_gives_the_defaults(model: Any) -> None:
    own = copy.copy(model)
    own.generation_config = hf.GenerationConfig(
        max_new_tokens=5, do_sample=True, temperature=0.7, eos_token_id=[29]
    )
    engine = Engine(own, strategy="plain")
    result = engine.generate(PROMPTS[0], seed=1)
    explicit = engine.generate(
        PROMPTS[0], seed=1, max_new_tokens=5, temperature=0.7, eos_token_id=[29]
    )
    assert result.token_ids == explicit.token_ids and len(result.token_ids) <= 5
    greedy = engine.generate(PROMPTS[0], temperature=0, max_new_tokens=4)
    assert greedy.token_ids == tiny.greedy_reference(model, PROMPTS[0], 4, 29)


def test_public_names_are_importable() -> None:
    for name in specdec.__all__:
        assert getattr(specdec, name) is not None
    assert set(specdec.__all__) <= set(dir(specdec))
    with pytest.raises(AttributeError, match="no attribute 'Engin'"):
        _ = specdec.Engin
