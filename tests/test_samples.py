"""Several texts of one prompt: each as if it had been asked for alone, with its own seed."""

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

SETTINGS: dict[str, Any] = {"max_new_tokens": 10, "temperature": 1.0, "eos_token_id": []}


@examples(8, 100)
@given(n=st.integers(1, 4), several=st.booleans(), seed=st.integers(0, 99))
def test_each_text_is_that_of_its_seed_alone(
    dynamic: Engine, n: int, several: bool, seed: int
) -> None:
    prompts = PROMPTS[:2] if several else PROMPTS[:1]
    asked = prompts if several else prompts[0]
    results: Any = dynamic.generate(asked, n=n, seed=seed, **SETTINGS)
    rows = [prompt for prompt in prompts for _ in range(n)]
    assert len(results) == len(rows) == len({result.seed for result in results})
    assert tiny.tokens(dynamic, rows, seed=seed, **SETTINGS) == [r.token_ids for r in results]
    for prompt, result in zip(rows, results, strict=True):
        assert result.prompt_tokens == len(prompt)
        assert tiny.tokens(dynamic, prompt, seed=[result.seed], **SETTINGS) == result.token_ids


def test_texts_of_a_prompt_differ_and_may_be_given_seeds(plain: Engine) -> None:
    texts: Any = tiny.tokens(plain, PROMPTS[0], n=6, seed=3, **SETTINGS)
    assert len({tuple(text) for text in texts}) == 6
    seeded: Any = plain.generate(PROMPTS[:2], n=2, seed=[4, 4, 5, 6], **SETTINGS)
    assert seeded[0].token_ids == seeded[1].token_ids
    assert [result.seed for result in seeded] == [4, 4, 5, 6]


def test_the_field_of_transformers_says_the_same(plain: Engine) -> None:
    wanted = tiny.tokens(plain, PROMPTS[0], n=3, seed=3, **SETTINGS)
    config = hf.GenerationConfig(do_sample=True, num_return_sequences=3)
    for said in ({"num_return_sequences": 3}, {"generation_config": config}):
        assert tiny.tokens(plain, PROMPTS[0], seed=3, **said, **SETTINGS) == wanted
    assert len(tiny.tokens(plain, PROMPTS[0], n=2, generation_config=config, **SETTINGS)) == 2
    alone = plain.generate(PROMPTS[0], num_return_sequences=1, **SETTINGS)
    assert not isinstance(alone, list), "1 is what it is anyway"


def test_a_processor_by_prompt_is_made_for_every_text_of_its_prompt(plain: Engine) -> None:
    made: list[int] = []

    def make(prompt: int) -> Any:
        made.append(prompt)
        calls: list[int] = []

        def processor(ids: Any, scores: Any) -> Any:
            calls.append(ids.shape[1])
            assert calls == list(range(len(PROMPTS[prompt]), ids.shape[1] + 1)), "its own alone"
            return scores.index_fill(1, torch.tensor([1 + prompt]), 99.0)

        return processor

    texts: Any = tiny.tokens(plain, PROMPTS[:2], n=2, logits_processor_by_prompt=make, **SETTINGS)
    assert made == [0, 0, 1, 1]
    assert texts == [[1] * 10] * 2 + [[2] * 10] * 2


def test_a_function_of_the_prefix_gets_the_index_of_the_prompt(plain: Engine) -> None:
    only = hf.PrefixConstrainedLogitsProcessor(lambda prompt, ids: [11 + prompt], 1)
    texts = tiny.tokens(plain, PROMPTS[:2], n=2, logits_processor=only, **SETTINGS)
    assert texts == [[11] * 10] * 2 + [[12] * 10] * 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"temperature": 0}, "would all be the same"),
        ({"n": 0}, "n must be a whole number"),
        ({"n": True}, "n must be a whole number"),
        ({"num_return_sequences": 2}, "n=3 and num_return_sequences=2 say the same"),
        ({"seed": [1, 2]}, r"2 entries for 3 texts \(3 of each prompt\)"),
        ({"logits_processor_by_prompt": [lambda ids, scores: scores]}, "several texts of prompt 0"),
    ],
    ids=["greedy", "none", "no number", "twice", "seeds", "a processor for each prompt"],
)
def test_what_cannot_be_meant_is_refused(plain: Engine, given: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        plain.generate(PROMPTS[0], **{**SETTINGS, "n": 3, **given})
