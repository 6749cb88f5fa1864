"""The caller's stopping criteria: called as plain decoding would call them, row by row."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from tiny import PROMPTS

import specdec.generation
from examples import examples
from specdec import Engine
from specdec.decoding.clock import Clock
from specdec.decoding.metrics import Metrics
from specdec.errors import OptionError

SETTINGS: dict[str, Any] = {"max_new_tokens": 16, "temperature": 1.0, "seed": 5, "eos_token_id": []}


class Hashed(hf.StoppingCriteria):
    """Ends a text at prefixes that a number chooses, and keeps all that it was called with."""

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, []

    def ends(self, tokens: list[int]) -> bool:
        return (sum(tokens) * 7919 + len(tokens) * self.number) % 11 == 0

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        assert scores is None and input_ids.shape[0] == 1
        self.seen.append(input_ids[0].tolist())
        return torch.tensor([self.ends(self.seen[-1])])


def cut(prompt: list[int], text: list[int], criterion: Hashed) -> list[int]:
    """A text up to the first token where the criterion ends it."""
    ends = (n for n in range(1, len(text) + 1) if criterion.ends(prompt + text[:n]))
    return text[: next(ends, len(text))]


@examples(12, 200)
@given(number=st.integers(0, 10), rows=st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_a_text_ends_at_the_first_token_where_a_criterion_says_so(
    plain: Engine, dynamic: Engine, number: int, rows: list[int]
) -> None:
    prompts = [PROMPTS[row] for row in rows]
    whole = tiny.tokens(plain, prompts, **SETTINGS)
    for engine in (plain, dynamic):
        criterion = Hashed(number)
        results: Any = engine.generate(prompts, stopping_criteria=criterion, **SETTINGS)
        wanted = [cut(p, text, criterion) for p, text in zip(prompts, whole, strict=True)]
        assert [result.token_ids for result in results] == wanted
        reasons = [result.finish_reason for result in results]
        early = [
            criterion.ends(prompt + text) for prompt, text in zip(prompts, wanted, strict=True)
        ]
        assert reasons == ["criteria" if ended else "length" for ended in early]


def test_a_criterion_sees_every_prefix_once_and_in_order(dynamic: Engine) -> None:
    criterion = Hashed(3)
    result: Any = dynamic.generate(PROMPTS[0], stopping_criteria=criterion, **SETTINGS)
    text = PROMPTS[0] + result.token_ids
    assert result.stats.tau > 1.2, "every step committed one token"
    assert criterion.seen == [text[:n] for n in range(len(PROMPTS[0]) + 1, len(text) + 1)]


def test_criteria_come_alone_in_lists_and_as_functions(plain: Engine) -> None:
    whole = tiny.tokens(plain, PROMPTS[0], **SETTINGS)

    def after(count: int) -> Any:
        return lambda ids, scores: ids.shape[1] >= len(PROMPTS[0]) + count

    given: list[Any] = [
        after(4),
        [after(9), after(4)],
        hf.StoppingCriteriaList([after(4)]),
        (hf.MaxLengthCriteria(len(PROMPTS[0]) + 4), [after(7)]),
    ]
    for criteria in given:
        assert tiny.tokens(plain, PROMPTS[0], stopping_criteria=criteria, **SETTINGS) == whole[:4]


def test_transformers_own_criteria_mean_the_same_as_the_arguments(
    dynamic: Engine, tokenizer: Any
) -> None:
    whole: Any = dynamic.generate(PROMPTS[0], **SETTINGS)
    string = whole.text[5:7]
    criterion = hf.StopStringCriteria(tokenizer, string)
    ended: Any = dynamic.generate(PROMPTS[0], stopping_criteria=criterion, **SETTINGS)
    stopped: Any = dynamic.generate(PROMPTS[0], stop=string, **SETTINGS)
    assert ended.token_ids == stopped.token_ids and len(ended.token_ids) < 16
    assert (ended.finish_reason, stopped.finish_reason) == ("criteria", "stop")


@pytest.mark.parametrize("given", [{"max_time": 1e-9}, {"generation_config": {"max_time": 1e-9}}])
def test_max_time_ends_a_text_after_the_step_that_passes_it(
    dynamic: Engine, given: dict[str, Any]
) -> None:
    result: Any = dynamic.generate(PROMPTS[0], **given, **SETTINGS)
    assert result.finish_reason == "time" and len(result.token_ids) == 1


def test_max_time_counts_from_the_call(plain: Engine) -> None:
    def slow(ids: Any, scores: Any) -> Any:
        time.sleep(0.03)
        return scores

    result: Any = plain.generate(PROMPTS[0], max_time=0.1, logits_processor=slow, **SETTINGS)
    assert result.finish_reason == "time" and 1 <= len(result.token_ids) < 16


@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=6),
    most=st.integers(0, 20),
)
def test_measurements_of_a_row_that_is_ended_are_of_what_is_left(
    steps: list[tuple[int, int]], most: int
) -> None:
    """Steps of so many accepted draft tokens, in trees that were so many levels deeper."""
    metrics, left = Metrics(1, Clock(torch.device("cpu")), lossless=True), most
    accepted = tried = 0
    for count, deeper in steps:
        step: Any = SimpleNamespace(
            request_rows=[0],
            new_tokens=[[7] * (count + 1)],
            accepted=[count],
            tried=[count + deeper],
        )
        metrics.observe(step)
        kept = min(count + 1, left)
        left -= kept
        accepted += min(count, kept)
        tried += min(count + deeper, kept)
    metrics.end(0, most)
    stats = metrics.stats(0)
    assert stats.target_forwards == len(steps), "forwards that ran are counted"
    assert stats.new_tokens == most - left and stats.accepted_tokens == accepted
    assert sum(stats.tried) == tried


@pytest.mark.parametrize(
    ("criteria", "says"),
    [
        (hf.MaxTimeCriteria, "StoppingCriteria, one or a list"),
        (5, "not 5"),
        ([None, "stop"], "not 'stop'"),
        (lambda ids, scores: None, "returned None"),
        (lambda ids, scores: torch.zeros(2, dtype=torch.bool), r"a tensor \[2\]"),
    ],
    ids=["class", "number", "text", "none", "two rows"],
)
def test_what_is_no_criterion_is_refused(plain: Engine, criteria: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        plain.generate(PROMPTS[0], stopping_criteria=criteria, **SETTINGS)


def test_without_criteria_nothing_is_kept_for_them(
    plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RowCriteria", "Detokenizer"):
        monkeypatch.setattr(specdec.generation, name, None)
    assert tiny.tokens(plain, PROMPTS[0], **SETTINGS)


def test_sessions_and_streams_take_criteria(dynamic: Engine) -> None:
    wanted = tiny.tokens(dynamic, PROMPTS[0], stopping_criteria=Hashed(2), **SETTINGS)
    stream: Any = dynamic.stream(PROMPTS[0], stopping_criteria=Hashed(2), **SETTINGS)
    assert "".join(stream) == stream.result.text and stream.result.token_ids == wanted
    session = dynamic.session()
    first: Any = session.generate(PROMPTS[0], stopping_criteria=Hashed(2), **SETTINGS)
    assert first.token_ids == wanted
    turn = [*PROMPTS[0], *wanted, 4, 9]
    assert tiny.tokens(session, turn, **SETTINGS) == tiny.tokens(dynamic, turn, **SETTINGS)


# Memory: a batch begins again in halves.


def short_of_memory(monkeypatch: pytest.MonkeyPatch, engine: Engine, call: int) -> None:
    """A forward of more than one row fails: the ``call``-th, or that and all others."""
    kind = "prefill" if call == 0 else "forward"
    true, calls = getattr(type(engine.target), kind), [0]

    def small(self: Any, tokens: Any, *given: Any) -> Any:
        if len(tokens) > 1:
            calls[0] += 1
            if calls[0] >= call:
                raise torch.OutOfMemoryError("no memory for that many")
        return true(self, tokens, *given)

    monkeypatch.setattr(type(engine.target), kind, small)


class Counting(hf.StoppingCriteria):
    """Ends a text at the 40th call, whichever text that is."""

    calls = 0

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self.calls += 1
        return torch.tensor([self.calls >= 40])


def test_a_criterion_that_was_called_and_may_keep_a_state_is_not_called_anew(
    plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, plain, call=5)
    with pytest.raises(OptionError, match=r"criterion Counting.*called.*give batch_size=1"):
        plain.generate(PROMPTS, stopping_criteria=[Counting()], **SETTINGS)


@pytest.mark.filterwarnings("ignore:a batch of")
def test_batches_begin_anew_with_criteria_that_were_not_called_or_keep_no_state(
    plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny.tokens(plain, PROMPTS, **SETTINGS)
    longest = hf.MaxLengthCriteria(max(map(len, PROMPTS)) + 4)
    shorter = [text[: longest.max_length - len(p)] for p, text in zip(PROMPTS, whole, strict=True)]
    with monkeypatch.context() as patched:
        short_of_memory(patched, plain, call=3)
        criteria = [longest, hf.MaxTimeCriteria(1e9), hf.EosTokenCriteria([10**6])]
        assert tiny.tokens(plain, PROMPTS, stopping_criteria=criteria, **SETTINGS) == shorter
    short_of_memory(monkeypatch, plain, call=0)
    hashed = Hashed(100)
    expected = [cut(p, text, hashed) for p, text in zip(PROMPTS, whole, strict=True)]
    assert tiny.tokens(plain, PROMPTS, stopping_criteria=hashed, **SETTINGS) == expected
