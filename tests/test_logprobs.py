"""Log-probabilities are those of the model and of its processed scores, under every strategy."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from tiny import PROMPTS

from examples import examples
from specdec import Engine
from specdec.errors import OptionError

PENALTIES: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.4},
    {"suppress_tokens": [1, 26, 45]},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 3},
]
WARPS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.8},
]


@pytest.fixture(scope="module", params=["plain", "dynamic", "eagle"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)


def due(model: Any, prompt: list[int], answer: list[int], settings: dict[str, Any]) -> Any:
    """Of each token of the answer: log-probabilities ``[V]`` before and after, by transformers."""
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
    config = hf.GenerationConfig(
        do_sample=settings.get("temperature", 0) > 0, eos_token_id=tiny.EOS, **settings
    )
    config._eos_token_tensor = torch.tensor([tiny.EOS])
    processors = model._get_logits_processor(
        config, len(prompt), logits_processor=hf.LogitsProcessorList(), device="cpu"
    )
    ends = range(len(prompt), ids.shape[1])
    after = [
        processors(ids[:, :n], row[None].clone())[0] for n, row in zip(ends, logits, strict=True)
    ]
    return logits.log_softmax(-1), torch.stack(after).log_softmax(-1)


@examples(10, 100)
@given(
    penalties=st.sampled_from(PENALTIES),
    warps=st.sampled_from(WARPS),
    row=st.integers(0, 2),
    top=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_they_are_those_of_the_model_and_of_its_processed_scores(
    model: Any,
    engine: Engine,
    penalties: dict[str, Any],
    warps: dict[str, Any],
    row: int,
    top: int,
    seed: int,
) -> None:
    settings = {**penalties, **warps, "eos_token_id": tiny.EOS, "max_new_tokens": 8, "seed": seed}
    results: Any = engine.generate(PROMPTS, logprobs=top, **settings)
    assert tiny.tokens(engine, PROMPTS, **settings) == [each.token_ids for each in results]
    result = results[row]
    fields = {name: value for name, value in {**penalties, **warps}.items() if value}
    before, after = due(model, PROMPTS[row], result.token_ids, fields)
    assert [each.token for each in result.logprobs] == result.token_ids
    for place, found in enumerate(result.logprobs):
        pairs = (found.raw, found.top_raw, before), (found.processed, found.top_processed, after)
        for own, best, wanted in pairs:
            assert own == pytest.approx(float(wanted[place, found.token]), abs=1e-9)
            values = wanted[place].topk(top).values
            kept = values[values > float("-inf")].tolist()
            assert [value for _, value in best] == pytest.approx(kept, abs=1e-9)
            assert all(float(wanted[place, t]) == pytest.approx(v, abs=1e-9) for t, v in best)


def test_a_processor_with_a_state_is_called_as_often_as_without(dynamic: Engine) -> None:
    def run(**more: Any) -> tuple[list[int], list[int]]:
        seen: list[int] = []

        def processor(ids: Any, scores: Any) -> Any:
            seen.append(ids.shape[1])
            return scores + len(seen) * torch.cos(torch.arange(scores.shape[1]))

        found = dynamic.generate(PROMPTS[0], logits_processor=processor, **settings, **more)
        assert not isinstance(found, list)
        if more:
            assert found.logprobs is not None
            assert all(each.raw != each.processed for each in found.logprobs)
        return found.token_ids, seen

    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 1}
    assert run() == run(logprobs=3)


def test_a_batch_whose_rows_leave_has_every_row_of_them(dynamic: Engine) -> None:
    prompts = [PROMPTS[row % 3] for row in range(9)]
    settings: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.0, "eos_token_id": [1, 45]}
    together: Any = dynamic.generate(prompts, logprobs=1, seed=4, **settings)
    assert len({len(each.token_ids) for each in together}) > 2
    for prompt, own in zip(prompts, together, strict=True):
        alone: Any = dynamic.generate(prompt, logprobs=1, seed=[own.seed], **settings)
        assert alone.token_ids == own.token_ids == [each.token for each in own.logprobs]
        for a, b in zip(alone.logprobs, own.logprobs, strict=True):
            assert (a.raw, a.processed) == pytest.approx((b.raw, b.processed), abs=1e-9)


def test_there_are_none_unless_asked_for(plain: Engine) -> None:
    result: Any = plain.generate(PROMPTS[0], max_new_tokens=2)
    assert result.logprobs is None


@pytest.mark.parametrize("logprobs", [-1, 1.5, True, "3", 10**6])
def test_what_is_no_number_of_tokens_is_refused(plain: Engine, logprobs: Any) -> None:
    with pytest.raises(OptionError, match="logprobs="):
        plain.generate(PROMPTS[0], max_new_tokens=2, logprobs=logprobs)
