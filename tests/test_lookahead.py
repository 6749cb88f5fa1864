"""Lookahead decoding: its window, its pool, and that the text stays the target's."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec import Engine
from specdec.acceleration.acceleration import Acceleration
from specdec.decoding.step import Step
from specdec.errors import OptionError
from specdec_plugins.lookahead.pool import NgramPool, branches
from specdec_plugins.lookahead.window import Window

tokens = st.integers(0, 9)
FULL_SOON = {"drafter": {"window": 4, "ngram": 3, "candidates": 4}}


class Columns:
    """A window as what it is: columns, each the tokens that the target made for it one by one.

    In every step a token is appended to each; the first column, until all are as long as they get,
    goes. What the window shows are the last tokens of each column, with the root above the first.
    """

    def __init__(self, start: list[int], window: int, ngram: int) -> None:
        width = window + ngram - 3
        self.columns = [[0], *([start[at % len(start)]] for at in range(width))]
        self.ngram = ngram

    def paths(self, root: int) -> list[list[int]]:
        """For each guess the tokens from the root to it."""
        shown = [column[1 - self.ngram :] for column in self.columns]
        shown[0] = [root, *shown[0][1:]]
        oldest = [column[0] for column in shown]
        levels = range(len(shown[0]))
        return [
            [*oldest[: at + 1], *column[1 : level + 1]]
            for level in levels
            for at, column in enumerate(shown)
            if at or level
        ]

    def take(self, root: int, made: list[int]) -> list[tuple[int, ...]]:
        full = len(self.columns[0]) >= self.ngram - 1
        for column, token in zip(reversed(self.columns), reversed(made), strict=False):
            column.append(token)
        if not full:
            del self.columns[0]
            return []
        found = [tuple(column[-self.ngram :]) for column in self.columns]
        return [(root, *found[0][1:]), *found[1:]]


@given(st.lists(tokens, min_size=1, max_size=12), st.integers(2, 6), st.integers(3, 6), st.data())
def test_a_guess_sees_the_oldest_level_up_to_its_column_and_its_column(
    start: list[int], columns: int, ngram: int, data: st.DataObject
) -> None:
    window, due = Window(start, columns, ngram), Columns(start, columns, ngram)
    for _ in range(2 * ngram):
        root = data.draw(tokens)
        guesses, paths = window.guesses(), [[root]]
        for token, parent in zip(guesses.tokens, guesses.parents, strict=True):
            paths.append([*paths[parent + 1], token])
        assert paths[1:] == due.paths(root)
        assert guesses.depth == max(map(len, paths)) - 1
        size = guesses.newest
        made = data.draw(st.lists(tokens, min_size=size, max_size=size))
        assert window.take(root, made) == due.take(root, made)
    assert len(window.guesses().tokens) == columns * (ngram - 1) - 1


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), max_size=40), st.integers(1, 4)
)
def test_the_pool_holds_the_latest_ngrams_of_each_first_token(
    ngrams: list[list[int]], most: int
) -> None:
    pool = NgramPool(most)
    for ngram in ngrams:
        pool.add(ngram)
    for first in range(3):
        seen = dict.fromkeys(tuple(rest) for at, *rest in reversed(ngrams) if at == first)
        assert pool.candidates(first) == list(seen)[:most]


@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), max_size=9))
def test_the_branches_are_the_candidates_and_their_shares(candidates: list[list[int]]) -> None:
    found, paths = branches(candidates), []
    for token, parent in zip(found.tokens, found.parents, strict=True):
        paths.append([*(paths[parent] if parent >= 0 else []), token])
    every = [candidate[:end] for candidate in candidates for end in (1, 2, 3)]
    assert sorted(paths) == sorted(map(list, set(map(tuple, every))))
    for path, share in zip(paths, found.shares, strict=True):
        begin = sum(candidate[: len(path)] == path for candidate in candidates)
        assert share == begin / len(candidates)


def drafted(step: Step, row: int) -> set[tuple[int, ...]]:
    """The n-grams of a row's tree, each from the root to a leaf."""
    tree = step.tree
    leaves = [
        node
        for node in range(tree.size)
        if tree.valid[row, node] and int(tree.depths[row, node]) == tree.depth
    ]
    return {tuple(tree.tokens[row, tree.ancestors[row, leaf]].tolist()) for leaf in leaves}


@pytest.mark.parametrize("prompt", [False, True])
def test_drafts_are_ngrams_that_the_window_made_or_the_prompts_own(
    model: Any, prompt: bool
) -> None:
    options = {"drafter": {**FULL_SOON["drafter"], "prompt": prompt}}
    engine = Engine(model, strategy="lookahead", options=options)
    window, ngram = 4, 3
    prompts = [[5, 9, 1, 7, 5, 9], [4, 4, 4, 4]]
    columns = [Columns(own[-(window + ngram) :], window, ngram) for own in prompts]
    pools: dict[int, set[tuple[int, ...]]] = defaultdict(set)
    if prompt:
        for row, own in enumerate(prompts):
            pools[row] |= {tuple(own[at : at + 3]) for at in range(len(own) - 2)}
    settings = {"max_new_tokens": 40, "temperature": 1.0, "top_k": 2, "seed": 1}
    seen = 0
    for step in engine.start(prompts, eos_token_id=[], **settings):
        if step.tree.companions is None:
            break
        with torch.inference_mode():
            made = engine.target.logits(step.verification.companions.last).argmax(dim=-1)
        for row, request_row in enumerate(step.request_rows):
            own = drafted(step, row) if step.tree.depth else set()
            assert own <= pools[request_row]
            seen += len(own)
            root = int(step.tree.tokens[row, 0])
            paths = step.tree.with_companions.ancestors[row, step.tree.size :]
            every = step.tree.with_companions.tokens[row]
            assert [every[path].tolist() for path in paths] == columns[request_row].paths(root)
            count = len(columns[request_row].columns)
            pools[request_row] |= set(columns[request_row].take(root, made[row, -count:].tolist()))
    assert seen > 10


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_of_a_batch_decodes_as_alone_and_like_plain_decoding(
    model: Any, plain: Engine, temperature: float
) -> None:
    engine = plain.with_strategy("lookahead", options=FULL_SOON)
    settings: dict[str, Any] = {"temperature": temperature, "max_new_tokens": 40}
    settings |= {"top_k": 2} if temperature else {}
    batch = engine.generate(tiny.PROMPTS, seed=[3, 4, 5], **settings)
    for row, (prompt, seed) in enumerate(zip(tiny.PROMPTS, [3, 4, 5], strict=True)):
        (alone,) = engine.generate([prompt], seed=[seed], **settings)
        assert (
            alone.token_ids
            == batch[row].token_ids
            == tiny.tokens(plain, [prompt], seed=[seed], **settings)[0]
        )
        assert alone.stats.target_forwards == batch[row].stats.target_forwards
        assert alone.stats.alpha == batch[row].stats.alpha
    assert tiny.mean_tau(batch) > 1.1


@pytest.mark.parametrize(("window", "ngram"), [(4, 3), (5, 5), (2, 7)])
def test_where_shapes_are_compiled_every_step_has_those_of_the_first(
    model: Any, plain: Engine, monkeypatch: pytest.MonkeyPatch, window: int, ngram: int
) -> None:
    options = {"drafter": {"window": window, "ngram": ngram, "candidates": 3}}
    settings: dict[str, Any] = {"max_new_tokens": 48, "temperature": 0, "eos_token_id": []}
    free = plain.with_strategy("lookahead", options=options)
    monkeypatch.setattr(
        "specdec.engine.Acceleration",
        lambda **given: Acceleration(
            **given, backend=lambda graph, _: graph.forward, compile_after=2
        ),
    )
    engine = Engine(model, strategy="lookahead", options=options, compile=True)
    scored: list[tuple[int, ...]] = []
    logits = engine.target.logits
    monkeypatch.setattr(
        engine.target, "logits", lambda hidden: scored.append(hidden.shape[1:]) or logits(hidden)
    )
    accepted = 0
    for prompt in tiny.PROMPTS:
        steps, wanted = (tiny.steps(each, [prompt], **settings) for each in (engine, free))
        assert [step.new_tokens for step in steps] == [step.new_tokens for step in wanted]
        shapes = {(s.tree.size, s.tree.companions.tokens.shape) for s in steps if s.tree.companions}
        assert len(shapes) == 1
        assert any(not step.tree.valid[0, 1:].any() for step in steps if step.tree.companions)
        accepted += sum(step.accepted[0] for step in steps)
    assert accepted
    assert len(set(scored)) <= 3  # trees, windows, roots where there is no room for drafts


def test_a_text_may_fill_the_context(model: Any) -> None:
    short = tiny.make_model(tiny.llama_config(max_position_embeddings=24))
    plain = Engine(short, strategy="plain")
    settings: dict[str, Any] = {"max_new_tokens": 21, "temperature": 0.0, "eos_token_id": []}
    ours = plain.with_strategy("lookahead").generate([6, 7, 1], **settings)
    assert len(ours.token_ids) == 21 and ours.token_ids == tiny.tokens(plain, [6, 7, 1], **settings)


def test_every_turn_of_a_session_equals_a_fresh_run(plain: Engine) -> None:
    engine = plain.with_strategy("lookahead", options=FULL_SOON)
    session, prompt = engine.session(), list(tiny.PROMPTS[0])
    for turn in ([3, 9, 11], [40]):
        prompt += turn
        result = session.generate(prompt, max_new_tokens=9, temperature=0)
        assert result.token_ids == tiny.tokens(plain, prompt, max_new_tokens=9, temperature=0)
        prompt += result.token_ids


def test_packed_weights_draft_too(all_packed: object) -> None:
    model = tiny.make_model(tiny.llama_config(hidden_size=64, intermediate_size=128)).float()
    plain = Engine(model, strategy="plain", pack=True)
    engine = plain.with_strategy("lookahead", options=FULL_SOON)
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0}
    assert tiny.tokens(engine, tiny.PROMPTS, **settings) == tiny.tokens(
        plain, tiny.PROMPTS, **settings
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [({"ngram": 2}, "ngram"), ({"window": 1}, "window"), ({"candidates": 0}, "candidates")],
)
def test_options_out_of_range_are_refused(
    plain: Engine, options: dict[str, int], says: str
) -> None:
    with pytest.raises(OptionError, match=says):
        plain.with_strategy("lookahead", options={"drafter": options})


def test_a_policy_beside_it_is_refused(plain: Engine) -> None:
    with pytest.raises(OptionError, match="gives whole trees"):
        plain.with_strategy("lookahead", policy="auto")
