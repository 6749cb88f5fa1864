"""Stop rules look at tokens alone: every strategy ends where plain decoding ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
import transformers as hf
from tiny import PROMPTS
from transformers.convert_slow_tokenizer import bytes_to_unicode

from specdec import Engine, GenerationResult
from specdec.request.detokenizer import Detokenizer
from specdec.request.stopping import StopRules

LONGEST = 30


@pytest.fixture(scope="module", params=["eagle2", "eagle2+draft_model", "static_tree+draft_model"])
def fast(request: pytest.FixtureRequest, plain: Engine, head: Path, draft: Path) -> Engine:
    return tiny.engine(plain, request.param, head if tiny.needs_head(request.param) else draft)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7, 11])
def test_max_new_tokens_is_exact(plain: Engine, fast: Engine, limit: int) -> None:
    whole = tiny.tokens(plain, PROMPTS, max_new_tokens=LONGEST, temperature=0)
    for result, wanted in zip(
        fast.generate(PROMPTS, max_new_tokens=limit, temperature=0), whole, strict=True
    ):
        assert result.token_ids == wanted[:limit]
        assert result.finish_reason == "length"


@pytest.mark.parametrize("length", [11, 12, 15])
def test_max_length_counts_the_prompt(plain: Engine, fast: Engine, length: int) -> None:
    prompt = PROMPTS[0]
    whole = tiny.tokens(plain, prompt, max_new_tokens=LONGEST, temperature=0)
    result = fast.generate(prompt, max_length=length, temperature=0)
    assert result.token_ids == whole[: length - len(prompt)]
    assert result.finish_reason == "length"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_eos_ends_a_row_wherever_it_falls_in_a_step(
    plain: Engine, dynamic: Engine, temperature: float
) -> None:
    settings = {"max_new_tokens": LONGEST, "temperature": temperature, "seed": 9}
    whole = tiny.tokens(plain, PROMPTS[0], **settings)
    generation = dynamic.session().start(PROMPTS[0], **settings)
    inside = set()
    for step in generation:
        for place, token in enumerate(step.new_tokens[0][:-1]):
            inside.add((place, token))
    assert {place for place, _ in inside} >= {0, 1}, "no eos can fall inside a path"
    for _, eos in sorted(inside):
        end = whole.index(eos) + 1
        for engine in (plain, dynamic):
            result = engine.generate(PROMPTS[0], eos_token_id=eos, **settings)
            assert result.token_ids == whole[:end]
            assert result.finish_reason == "eos"


def test_any_of_several_eos_ends_a_row_and_the_others_go_on(plain: Engine, fast: Engine) -> None:
    settings = {"max_new_tokens": LONGEST, "temperature": 0}
    whole = tiny.tokens(plain, PROMPTS, **settings)
    eos = [whole[0][3], whole[1][9]]
    results = fast.generate(PROMPTS, eos_token_id=eos, **settings)
    for result, wanted in zip(results, whole, strict=True):
        places = [i for i, token in enumerate(wanted) if token in eos]
        assert result.token_ids == (wanted[: places[0] + 1] if places else wanted)
        assert result.finish_reason == ("eos" if places else "length")
    assert len({len(r.token_ids) for r in results}) > 1


CONTEXTS = {
    "rotary": lambda limit: tiny.llama_config(max_position_embeddings=limit),
    # Learned positions: a forward one position past the limit raises an error.
    "learned": lambda limit: hf.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=60, n_positions=limit, initializer_range=0.3,
        eos_token_id=None, bos_token_id=None, pad_token_id=None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTEXTS)
def test_the_context_limit_ends_rows_inside_a_tree(kind: str, tmp_path: Path) -> None:
    limit = 26
    model = tiny.make_model(CONTEXTS[kind](limit))
    plain = Engine(model, strategy="plain")
    draft = tiny.save_model(tiny.noisy_copy(model), tmp_path / "draft")
    head = tiny.make_head(tmp_path / "head", model)
    highest = []

    def note(_: Any, __: Any, kwargs: Any) -> None:
        if kwargs.get("position_ids") is not None:
            highest.append(int(kwargs["position_ids"].max()))

    wanted = plain.generate(PROMPTS, temperature=0)
    assert [len(p) + len(r.token_ids) for p, r in zip(PROMPTS, wanted, strict=True)] == [limit] * 3
    hook = plain.target.model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        for name, folder in (("eagle2+draft_model", draft), ("eagle2", head)):
            results = tiny.engine(plain, name, folder).generate(PROMPTS, temperature=0)
            for result, reference in zip(results, wanted, strict=True):
                assert result.token_ids == reference.token_ids
                assert result.finish_reason == "length"
    finally:
        hook.remove()
    assert max(highest) <= limit - 1


def test_a_prompt_one_short_of_the_context_gets_one_token(tmp_path: Path) -> None:
    model = tiny.make_model(CONTEXTS["learned"](18))
    plain = Engine(model, strategy="plain")
    fast = tiny.engine(plain, "eagle2", tiny.make_head(tmp_path, model))
    for engine in (plain, fast):
        assert len(tiny.tokens(engine, list(range(17)))) == 1


def test_stop_strings_cut_the_text_but_stay_in_the_tokens(
    plain: Engine, fast: Engine, tokenizer: Any
) -> None:
    settings = {"max_new_tokens": LONGEST, "temperature": 0, "eos_token_id": []}
    whole = plain.generate(PROMPTS[0], **settings)
    for start, size in ((0, 1), (3, 1), (4, 2), (9, 3)):
        stop = whole.text[start : start + size]
        first = whole.text.index(stop)
        for engine in (plain, fast):
            result = engine.generate(PROMPTS[0], stop=[stop, "never this"], **settings)
            assert result.finish_reason == "stop"
            assert result.text == whole.text[:first]
            assert result.token_ids == whole.token_ids[: len(result.token_ids)]
            assert tokenizer.decode(result.token_ids, skip_special_tokens=True).endswith(stop)


def test_stop_strings_of_a_batch_end_each_row_by_itself(plain: Engine, fast: Engine) -> None:
    settings = {"max_new_tokens": LONGEST, "temperature": 1.0, "seed": 4, "eos_token_id": []}
    stop = plain.generate(PROMPTS, **settings)[0].text[6:8]
    wanted = plain.generate(PROMPTS, stop=stop, **settings)
    got = fast.generate(PROMPTS, stop=stop, **settings)
    assert [(r.token_ids, r.text, r.finish_reason) for r in got] == [
        (r.token_ids, r.text, r.finish_reason) for r in wanted
    ]
    assert got[0].finish_reason == "stop"


def test_steps_never_commit_a_token_past_the_end(dynamic: Engine) -> None:
    for setting in ({"max_new_tokens": 6}, {"max_new_tokens": 30, "eos_token_id": [29, 59]}):
        generation = dynamic.session().start(PROMPTS, temperature=0, **setting)
        committed: list[list[int]] = [[], [], []]
        for step in generation:
            for row, new in enumerate(step.new_tokens):
                assert len(new) == int(step.counts[row])
                committed[row] += new
        results = generation.results()
        assert committed == [r.token_ids for r in results]
        assert all(r.stats.new_tokens == len(r.token_ids) for r in results)


@pytest.mark.parametrize(
    ("length", "tokens", "kept"),
    [
        (3, [1, 2], ([1, 2], None)),
        (3, [1, 2, 4, 5], ([1, 2, 4], "length")),
        (3, [1, 9, 4, 5], ([1, 9], "eos")),
        (3, [1, 2, 9, 5], ([1, 2, 9], "eos")),
        (3, [1, 2, 4, 9], ([1, 2, 4], "length")),
        (5, [1], ([1], "length")),
    ],
)
def test_the_first_rule_to_fire_clips_a_step(length: int, tokens: Any, kept: Any) -> None:
    assert StopRules((8, 9), (), [6], ()).clip(0, length, tokens) == kept


@pytest.fixture(scope="module")
def embedded() -> Engine:
    return Engine(strategy="plain")


def forced(engine: Engine, tokens: list[int], **settings: Any) -> dict[str, Any]:
    """Settings that make ``tokens`` the answer to the prompt ``[1]``."""

    def processor(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = ids.new_tensor([tokens[min(ids.shape[1] - 1, len(tokens) - 1)]])
        return torch.full_like(scores, float("-inf")).index_fill(1, chosen, 0.0)

    return {"temperature": 0, "eos_token_id": [], "logits_processor": processor, **settings}


def ids_of(engine: Engine, text: str) -> list[int]:
    found: list[int] = engine.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize(
    ("stop", "shown", "whole"),
    [
        ("<|end|>", "Hello you", "Hello you"),
        ("you<|end|>", "Hello ", "Hello "),
        ("you<|end|> a", "Hello ", "Hello "),
        ("d|> and", "Hello you", "Hello you<|en"),
        ("you and", "Hello you and", "Hello you<|end|> and"),
    ],
)
def test_a_stop_string_may_be_a_special_token_or_span_one(
    embedded: Engine, stop: str, shown: str, whole: str
) -> None:
    end = ids_of(embedded, "<|end|>")
    assert end == [embedded.tokenizer.eos_token_id]
    answer = [*ids_of(embedded, "Hello you"), *end, *ids_of(embedded, " and")]
    text = embedded.tokenizer.decode(answer)
    settings = forced(embedded, answer, max_new_tokens=len(answer))
    kept = next(
        (n for n in range(1, len(answer) + 1) if stop in embedded.tokenizer.decode(answer[:n])),
        None,
    )
    assert (kept is None) == (stop not in text)
    for skip, wanted in ((True, shown), (False, whole)):
        for given in (stop, ["never this", stop]):
            stream = embedded.stream([1], stop=given, skip_special_tokens=skip, **settings)
            assert "".join(stream) == wanted
            for result in (
                stream.result,
                embedded.generate([1], stop=given, skip_special_tokens=skip, **settings),
                embedded.generate([1], stop_strings=given, skip_special_tokens=skip, **settings),
            ):
                assert isinstance(result, GenerationResult)
                assert result.text == wanted
                assert result.token_ids == answer[:kept]
                assert result.finish_reason == ("length" if kept is None else "stop")


def test_stop_strings_that_are_special_tokens_end_where_transformers_ends(embedded: Engine) -> None:
    end = ids_of(embedded, "<|end|>")
    answer = [*ids_of(embedded, "Hello"), *end, *ids_of(embedded, " you"), *end]
    for stop in ("<|end|>", "llo<|end|>", "<|end|> you", "o<|end|> y", "end|> you<|end|>"):
        settings = forced(embedded, answer, max_new_tokens=len(answer))
        theirs = embedded.target.model.generate(
            torch.tensor([[1]]),
            attention_mask=torch.ones(1, 1),
            do_sample=False,
            max_new_tokens=len(answer),
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=hf.LogitsProcessorList([settings["logits_processor"]]),
            stop_strings=[stop],
            tokenizer=embedded.tokenizer,
        )
        ours = embedded.generate([1], stop=stop, **settings)
        assert isinstance(ours, GenerationResult)
        assert ours.token_ids == theirs[0, 1:].tolist()
        assert ours.finish_reason == "stop"


def test_stop_strings_sought_in_the_shown_text_alone_would_be_seen(embedded: Engine) -> None:
    """A planted bug: special tokens are left out of what is searched."""
    push = Detokenizer.push

    def shown(self: Detokenizer, token: int, stop: Sequence[str] = ()) -> bool:
        return False if self._pieces.piece(token).special else push(self, token, stop)

    with mock.patch.object(Detokenizer, "push", shown), pytest.raises(AssertionError):
        test_stop_strings_that_are_special_tokens_end_where_transformers_ends(embedded)


@pytest.mark.parametrize("text", ["\u20ac", "\U0001f600", "a\u20ac", "\u20ac\u20ac", "\ufffd"])
def test_the_last_byte_of_a_stop_string_stops_also_at_the_limit(
    embedded: Engine, text: str
) -> None:
    level = bytes_to_unicode()
    parts = [level[byte] for byte in text.encode()]
    answer = [*ids_of(embedded, "Hello"), *embedded.tokenizer.convert_tokens_to_ids(parts)]
    assert embedded.tokenizer.decode(answer) == "Hello" + text
    for more in (0, 1, 5):
        settings = forced(embedded, [*answer, *answer], max_new_tokens=len(answer) + more)
        result = embedded.generate([1], stop=text, **settings)
        assert isinstance(result, GenerationResult)
        assert result.finish_reason == "stop"
        assert result.token_ids == answer
        assert result.text == "Hello"


def test_special_tokens_are_shown_where_asked(embedded: Engine) -> None:
    end = embedded.tokenizer.eos_token_id
    answer = [*ids_of(embedded, "Hello"), end]
    settings = forced(embedded, answer, max_new_tokens=8, eos_token_id=end)
    for skip, text in ((True, "Hello"), (False, "Hello<|end|>")):
        chosen = {**settings, "skip_special_tokens": skip}
        stream = embedded.session().stream([1], **chosen)
        assert "".join(stream) == stream.result.text == text
        results = embedded.generate([[1], [1]], batch_size=1, **chosen)
        assert isinstance(results, list)
        assert [result.text for result in results] == [text, text]
        assert [result.finish_reason for result in results] == ["eos", "eos"]


def test_an_eos_that_is_a_stop_string_is_an_eos_and_not_shown(embedded: Engine) -> None:
    end = embedded.tokenizer.eos_token_id
    settings = forced(embedded, [*ids_of(embedded, "Hello"), end], eos_token_id=end)
    stream = embedded.stream([1], stop="<|end|>", skip_special_tokens=False, **settings)
    assert "".join(stream) == stream.result.text == "Hello"
    assert stream.result.finish_reason == "eos"
