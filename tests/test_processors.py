"""Logits processors under speculation: the same tokens and the same calls as plain decoding."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import EOS, PROMPTS
from transformers import LogitsProcessor

from specdec import Engine
from specdec.decoding import verification as verifications
from specdec.decoding.randomness import Key, KeyedRandomness, Stream
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.models.hidden_states import HiddenStates
from specdec.request.generation_config import resolve

WARPS: list[dict[str, Any]] = [
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.1},
    {"typical_p": 0.8},
    {"top_k": 8, "top_p": 0.9, "temperature": 0.6},
    {"epsilon_cutoff": 0.02},
]
PENALTIES: list[dict[str, Any]] = [
    {"repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 1},
    {"min_new_tokens": 9},
    {"min_length": 12},
    {"bad_words_ids": [[59, 32], *([token] for token in range(20, 40))]},
    {"suppress_tokens": [*range(20, 40)]},
    {"begin_suppress_tokens": [*range(20, 60)]},
    {"sequence_bias": {(59, 24): 2.0} | {(token,): -3.0 for token in range(20, 40)}},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "top_k": 7, "temperature": 0.9},
]


class Recorder(LogitsProcessor):
    """Sensitive to padding: the exact prefix decides what is made unlikely. Records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert input_ids.shape[0] == scores.shape[0] == 1
        prefix = tuple(input_ids[0].tolist())
        self.calls.append(prefix)
        scores = scores.clone()
        scores[0, (len(prefix) * 7 + sum(prefix)) % scores.shape[1] :: 3] -= 4.0
        return scores


def label(setting: dict[str, Any]) -> str:
    return "+".join(setting)


@pytest.mark.parametrize("setting", [*WARPS, *PENALTIES], ids=label)
def test_sampling_settings_leave_speculation_identical_to_plain(
    plain: Engine, eagle: Engine, dynamic: Engine, setting: dict[str, Any]
) -> None:
    bare: dict[str, Any] = {"max_new_tokens": 16, "seed": 2, "temperature": 1.0}
    text = tiny.tokens(plain, PROMPTS, eos_token_id=[], **bare)
    bare["eos_token_id"] = [row[4] for row in text]
    settings = {**bare, **setting}
    wanted = tiny.tokens(plain, PROMPTS, **settings)
    assert wanted != tiny.tokens(plain, PROMPTS, **bare), "the setting changes nothing here"
    for engine in (eagle, dynamic):
        assert tiny.tokens(engine, PROMPTS, **settings) == wanted


@pytest.mark.parametrize("setting", PENALTIES[:8], ids=label)
def test_greedy_text_of_a_ragged_batch_with_penalties_is_that_of_transformers(
    dynamic: Engine, setting: dict[str, Any]
) -> None:
    model = dynamic.target.model
    eos = [tiny.greedy_reference(model, prompt, 5)[2] for prompt in PROMPTS]
    wanted = [tiny.greedy_reference(model, prompt, 16, eos, **setting) for prompt in PROMPTS]
    got = tiny.tokens(
        dynamic, PROMPTS, max_new_tokens=16, temperature=0, eos_token_id=eos, **setting
    )
    assert got == wanted


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_custom_processor_sees_exactly_plain_decodings_calls(
    plain: Engine, eagle: Engine, dynamic: Engine, temperature: float
) -> None:
    settings = {"max_new_tokens": 20, "temperature": temperature, "seed": 6}

    def run(engine: Engine, prompt: Any, eos: list[int]) -> tuple[Any, list[tuple[int, ...]]]:
        recorder = Recorder()
        tokens = tiny.tokens(
            engine, prompt, eos_token_id=eos, logits_processor=recorder, **settings
        )
        return tokens, recorder.calls

    for prompt in PROMPTS:
        steps = tiny.steps(dynamic, prompt, logits_processor=Recorder(), **settings)
        # An eos in front of further accepted drafts: nothing may be asked behind it.
        inside = [step.new_tokens[0][0] for step in steps if len(step.new_tokens[0]) > 2]
        for eos in ([], *([token] for token in inside[:2])):
            wanted, calls = run(plain, prompt, eos)
            assert calls == [(*prompt, *wanted[:i]) for i in range(len(wanted))]
            for engine in (eagle, dynamic):
                assert run(engine, prompt, eos) == (wanted, calls)

    def each(engine: Engine) -> tuple[Any, list[list[tuple[int, ...]]]]:
        own = [Recorder() for _ in PROMPTS]
        tokens = tiny.tokens(
            engine, PROMPTS, eos_token_id=EOS, logits_processor_by_prompt=own, **settings
        )
        return tokens, [recorder.calls for recorder in own]

    for engine in (eagle, dynamic):
        assert each(engine) == each(plain)


def test_stats_tell_the_time_spent_row_by_row(dynamic: Engine) -> None:
    result = dynamic.generate(PROMPTS[0], max_new_tokens=4, logits_processor=[Recorder()])
    assert result.stats.row_processor_seconds > 0
    assert dynamic.generate(PROMPTS[0], max_new_tokens=4).stats.row_processor_seconds == 0


def test_a_greedy_call_with_a_sampling_setting_warns(plain: Engine) -> None:
    with pytest.warns(UserWarning, match="top_k has no effect on greedy decoding"):
        plain.generate(PROMPTS[0], max_new_tokens=1, temperature=0, top_k=5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("warp", [{}, *WARPS, {"eta_cutoff": 0.01}, {"top_h": 0.5}], ids=str)
def test_draws_of_all_nodes_at_once_are_those_of_each(
    plain: Engine, warp: dict[str, Any], dtype: torch.dtype
) -> None:
    settings = {"temperature": 1.0, **warp}
    sampling = resolve(plain.generation_config, settings, default_new_tokens=9)
    state = tiny.make_state([[1, 2, 3], [4]], vocab=300)
    state.processors = sampling.processors([3, 1], torch.device("cpu"))
    tree = DraftTree.chain(state.root(), torch.zeros(2, 6, dtype=torch.int64))
    for seed in range(10):
        logits = (4 * torch.randn(2, 7, 300)).to(dtype)
        verification = Verification(state.verification_inputs, tree, HiddenStates(logits), logits)
        randomness = KeyedRandomness(torch.tensor([seed, seed + 100]))
        drawn = verification.drawn_everywhere(randomness, Stream.TARGET)
        assert drawn is not None
        for node in range(7):
            nodes = torch.full((2,), node)
            each = verification.distribution(nodes, state.active)
            key = Key(Stream.TARGET, verification.position(nodes))
            assert torch.equal(drawn[:, node], randomness.categorical(each, key))
            assert torch.equal(
                drawn[:, node], verification.draw(nodes, state.active, randomness, key.stream)
            )


@pytest.mark.parametrize(
    ("settings", "nodes"),
    [
        ({"temperature": 0.0, "repetition_penalty": 1.4}, 7),
        ({"temperature": 1.0, "repetition_penalty": 1.4}, 7),
        ({"temperature": 1.0, "bad_words_ids": [[1]]}, 7),
        ({"temperature": 1.0}, 1000),
        ({"temperature": 1.0, "top_p": 0.9}, 200),
    ],
    ids=str,
)
def test_draws_are_not_made_at_once_where_that_is_wrong_or_takes_long(
    plain: Engine, settings: dict[str, Any], nodes: int
) -> None:
    sampling = resolve(plain.generation_config, settings, default_new_tokens=9)
    state = tiny.make_state([[1, 2, 3]], vocab=100)
    state.processors = sampling.processors([3], torch.device("cpu"))
    tree = DraftTree.chain(state.root(), torch.zeros(1, nodes - 1, dtype=torch.int64))
    logits = torch.randn(1, nodes, 100)
    verification = Verification(state.verification_inputs, tree, HiddenStates(logits), logits)
    assert verification.drawn_everywhere(KeyedRandomness(torch.tensor([1])), Stream.TARGET) is None


@pytest.mark.parametrize("warp", [{}, *WARPS], ids=str)
def test_draws_at_once_and_a_traversal_accept_the_same(
    dynamic: Engine, warp: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 30, "seed": 3, **warp}

    def run() -> list[Any]:
        steps = tiny.steps(dynamic, PROMPTS, eos_token_id=EOS, **settings)
        return [(step.new_tokens, step.accepted, step.tried, step.finish_reasons) for step in steps]

    at_once = run()
    monkeypatch.setattr(verifications, "MOST_LOGITS_ON_CPU", 0)
    assert run() == at_once
    assert sum(sum(step[1]) for step in at_once) > 0
