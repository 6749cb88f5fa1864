"""Batches whose rows end at different times, and batches that are decoded in batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from specdec import Component, Engine, Strategy, hookimpl
from specdec.decoding.interfaces import Features, TreeDrafter, TreeProposer
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree
from specdec.errors import OptionError

PROMPTS = [*tiny.PROMPTS, [3, 3, 8], [12, 40]]
SETTINGS: dict[str, Any] = {"max_new_tokens": 24, "temperature": 1.0}
NAMES = ["plain", *tiny.STRATEGIES, "rejection"]
# The same parts in other combinations are slow.
COMBINED = ("eagle2+draft_model", "chain", "auto+draft_model")
SOME = [pytest.param(n, marks=[pytest.mark.slow] if n in COMBINED else []) for n in NAMES]


def engine(plain: Engine, name: str, head: Path, draft: Path) -> Engine:
    if name == "plain":
        return plain
    if name == "rejection":
        return plain.with_strategy("draft_model", drafter=draft)
    return tiny.engine(plain, name, head if tiny.needs_head(name) else draft)


def ends(plain: Engine, seeds: list[int]) -> list[int]:
    """Tokens at which the rows end at different times."""
    text = tiny.tokens(plain, PROMPTS, seed=seeds, eos_token_id=[], **SETTINGS)
    return [text[0][3], text[1][9], text[2][15]]


def batch_sizes(own: Engine, **chosen: Any) -> list[int]:
    """Rows of every step's tree, as ``generate`` runs it."""
    running = own.start(PROMPTS, **chosen)
    return [len(step.tree.tokens) for step in running]


@pytest.mark.parametrize("name", SOME)
@examples(2, many=12)
@given(first=st.integers(0, 50), temperature=st.sampled_from([0.0, 1.0]))
def test_rows_that_leave_the_batch_change_no_other_row(
    plain: Engine, head: Path, draft: Path, name: str, first: int, temperature: float
) -> None:
    own, seeds = engine(plain, name, head, draft), list(range(first, first + len(PROMPTS)))
    chosen = {**SETTINGS, "temperature": temperature, "eos_token_id": ends(plain, seeds)}
    together = tiny.tokens(own, PROMPTS, seed=seeds, **chosen)
    kept = own.session().generate(PROMPTS, seed=seeds, **chosen)
    assert together == [result.token_ids for result in kept]
    alone = [
        tiny.tokens(own, prompt, seed=[seed], **chosen)
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == alone


def test_the_room_of_other_rows_changes_no_draft_under_rejection(
    plain: Engine, draft: Path
) -> None:
    """Rows of one length and limit have different room once they have accepted differently."""
    tree = {"policy": {"depth": 4, "top_k": 4, "budget": 6}}
    own = tiny.engine(plain, "eagle2+draft_model", draft, acceptor="rejection", options=tree)
    prompt, seeds = [5, 9, 1, 5, 9, 4, 5, 9], list(range(40))
    chosen = {"max_new_tokens": 6, "temperature": 2.0, "eos_token_id": []}
    together = tiny.tokens(own, [prompt] * len(seeds), seed=seeds, **chosen)
    alone = [tiny.tokens(own, prompt, seed=[seed], **chosen) for seed in seeds]
    assert together == alone


@pytest.mark.parametrize("name", NAMES)
def test_finished_rows_leave_the_batch(plain: Engine, head: Path, draft: Path, name: str) -> None:
    own, seeds = engine(plain, name, head, draft), list(range(len(PROMPTS)))
    chosen = {**SETTINGS, "eos_token_id": ends(plain, seeds), "seed": seeds}
    sizes = batch_sizes(own, **chosen)
    assert sizes[0] == len(PROMPTS) and sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < len(PROMPTS)
    running = own.session().start(PROMPTS, **chosen)
    assert {len(step.tree.tokens) for step in running} == {len(PROMPTS)}, "a session keeps them"


def test_each_row_has_its_own_results_and_figures(plain: Engine, eagle: Engine) -> None:
    seeds = list(range(len(PROMPTS)))
    chosen = {**SETTINGS, "eos_token_id": ends(plain, seeds), "min_new_tokens": 2}
    results: Any = eagle.generate(PROMPTS, seed=seeds, **chosen)
    for prompt, seed, together in zip(PROMPTS, seeds, results, strict=True):
        alone: Any = eagle.generate(prompt, seed=[seed], **chosen)
        assert together.finish_reason == alone.finish_reason
        assert together.prompt_tokens == len(prompt)
        assert together.stats.new_tokens == alone.stats.new_tokens == len(alone.token_ids)
        assert together.stats.target_forwards == alone.stats.target_forwards
        assert together.stats.alpha == alone.stats.alpha


def test_the_rows_that_stay_keep_their_cache(plain: Engine, dynamic: Engine) -> None:
    running = dynamic.start(PROMPTS, max_new_tokens=9, temperature=0, eos_token_id=[])
    next(iter(running))
    state = running.state
    state.finish_reasons = ["eos" if row not in (1, 3) else None for row in range(len(PROMPTS))]
    next(iter(running))
    texts = [state.tokens[row, : state.host_lengths[row]].tolist() for row in range(2)]
    assert state.request_rows == [1, 3] and state.rows == 2
    assert state.cache is not None
    for row, text in enumerate(texts):
        assert state.tokens[row, : state.host_lengths[row]].tolist() == text
        fresh = plain.target.new_cache(1, len(text))
        with torch.inference_mode():
            plain.target.prefill(torch.tensor([text[:-1]]), fresh)
        for layer, clean in zip(state.cache.layers, fresh.layers, strict=True):
            kept = layer.group.keys[layer.index][row, : len(text) - 1]
            assert torch.allclose(kept, clean.group.keys[clean.index][0, : len(text) - 1])


@pytest.mark.parametrize(
    ("rows", "ended", "left"), [(16, 1, 16), (16, 2, 14), (7, 1, 6), (9, 1, 9)]
)
def test_rows_leave_when_an_eighth_of_the_batch_has_ended(
    plain: Engine, rows: int, ended: int, left: int
) -> None:
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    running = plain.start(prompts, max_new_tokens=9, temperature=0, eos_token_id=[])
    next(iter(running))
    running.state.finish_reasons = ["eos"] * ended + [None] * (rows - ended)
    next(iter(running))
    assert running.state.rows == left


def test_a_drafter_that_cannot_let_rows_go_keeps_the_whole_batch(plain: Engine) -> None:
    class Stubborn(TreeProposer):
        def tree(self, state: State) -> DraftTree:
            assert state.rows == len(PROMPTS)
            return DraftTree.chain(state.root(), state.root()[:, None])

    class StubbornDrafter(TreeDrafter):
        def start(self, state: State, features: Features) -> Stubborn:
            return Stubborn()

    class Plugin:
        @hookimpl
        def specdec_drafters(self) -> list[Component]:
            return [Component("stubborn", lambda *given: StubbornDrafter())]

        @hookimpl
        def specdec_strategies(self) -> list[Strategy]:
            return [Strategy("stubborn", drafter="stubborn")]

    own = Engine(plain.target.model, strategy="stubborn", plugins=[Plugin()])
    chosen = {**SETTINGS, "eos_token_id": ends(plain, [0, 1, 2, 3, 4]), "seed": [0, 1, 2, 3, 4]}
    assert tiny.tokens(own, PROMPTS, **chosen) == tiny.tokens(plain, PROMPTS, **chosen)


@pytest.mark.parametrize("name", ["chain", "static_tree+draft_model"])
@examples(4, many=60)
@given(lengths=st.lists(st.integers(46, 64), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_rows_that_cross_a_bucket_of_the_cache_at_different_steps_stay_right(
    plain: Engine, head: Path, draft: Path, name: str, lengths: list[int], seed: int
) -> None:
    prompts = [[(7 * i + n) % tiny.VOCAB for i in range(n)] for n in lengths]
    own = engine(plain, name, head, draft)
    chosen: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.0, "seed": seed}
    assert tiny.tokens(own, prompts, **chosen) == tiny.tokens(plain, prompts, **chosen)


@examples(3, many=20)
@given(batch_size=st.integers(1, 7), seed=st.integers(0, 9))
def test_waves_change_no_token(plain: Engine, dynamic: Engine, batch_size: int, seed: int) -> None:
    whole = tiny.tokens(dynamic, PROMPTS, seed=seed, **SETTINGS)
    assert tiny.tokens(dynamic, PROMPTS, seed=seed, batch_size=batch_size, **SETTINGS) == whole


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_a_batch_size_that_is_no_number_of_prompts_is_refused(plain: Engine, wrong: Any) -> None:
    with pytest.raises(OptionError, match="batch_size must be a whole number from 1"):
        plain.generate(PROMPTS, batch_size=wrong)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory for that many"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
    ids=["torch", "cuBLAS", "CUDA"],
)
def test_a_batch_that_runs_out_of_memory_goes_on_in_halves(
    dynamic: Engine, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    whole = tiny.tokens(dynamic, PROMPTS, seed=4, **SETTINGS)
    true = type(dynamic.target).prefill
    sizes = []

    def small(self: Any, tokens: torch.Tensor, cache: Any) -> Any:
        if self is dynamic.target:  # the draft model reads the prompts after it
            sizes.append(len(tokens))
        if len(tokens) > 2:
            raise error
        return true(self, tokens, cache)

    monkeypatch.setattr(type(dynamic.target), "prefill", small)
    with pytest.warns(UserWarning, match="batch_size=2"):
        assert tiny.tokens(dynamic, PROMPTS, seed=4, **SETTINGS) == whole
    assert sizes == [5, 2, 3, 1, 2]


def test_another_error_is_no_lack_of_memory(plain: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, tokens: torch.Tensor, cache: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(type(plain.target), "prefill", broken)
    with pytest.raises(RuntimeError, match="something else"):
        plain.generate(PROMPTS, max_new_tokens=4)


def test_progress_goes_to_stderr(plain: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    plain.generate(PROMPTS, max_new_tokens=2, progress=True, batch_size=2)
    shown = capsys.readouterr()
    assert shown.out == "" and "prompts 5 of 5 (100%)" in shown.err


@pytest.mark.filterwarnings("ignore:a batch of")
def test_a_prompt_that_ends_again_after_lack_of_memory_is_counted_once(
    plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, told = list(range(len(PROMPTS))), list[int]()
    chosen = {**SETTINGS, "seed": seeds, "eos_token_id": ends(plain, seeds)}
    true, failed = type(plain.target).forward, list[int]()

    def small(self: Any, tokens: torch.Tensor, *given: Any) -> Any:
        if sum(told) > len(failed) and len(failed) < 2 and len(tokens) > 1:
            failed.append(sum(told))
            raise torch.OutOfMemoryError("no memory for that many")
        return true(self, tokens, *given)

    monkeypatch.setattr(type(plain.target), "forward", small)
    plain.decode(plain.request(PROMPTS, **chosen), advance=told.append)
    assert len(failed) == 2 and min(told) == 0
    assert sum(told) == len(PROMPTS)
