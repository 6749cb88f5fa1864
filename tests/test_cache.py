"""The key-value cache: after every step it equals a fresh read of what has been committed."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from specdec import Engine
from specdec.kv_cache.cache_layers import LayerShape
from specdec.kv_cache.keyword import cache_keyword
from specdec.kv_cache.kv_cache import BUCKET, KVCache
from specdec.models.hf_target import HFTarget

SHAPES = (LayerShape(2, 3, 5), LayerShape(1, 4, 4), LayerShape(2, 3, 5))


def stores(cache: KVCache) -> list[torch.Tensor]:
    """Keys and values of every layer, ``[rows, slots, heads, dim]``."""
    return [
        store[layer.index]
        for layer in cache.layers
        for store in (layer.group.keys, layer.group.values)
    ]


def fresh(target: HFTarget, tokens: list[int]) -> list[torch.Tensor]:
    """Keys and values of one row, read from the start in one forward."""
    cache = target.new_cache(1, len(tokens))
    with torch.inference_mode():
        target.prefill(torch.tensor([tokens]), cache)
    return [store[0, : len(tokens)] for store in stores(cache)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", ["eagle2+draft_model", "static_tree+draft_model", "eagle2"])
def test_cache_after_every_commit_equals_a_fresh_prefill(
    plain: Engine, head: Any, draft: Any, name: str, temperature: float
) -> None:
    engine = tiny.engine(plain, name, head if tiny.needs_head(name) else draft)
    generation = engine.session().start(
        tiny.PROMPTS, max_new_tokens=24, temperature=temperature, seed=5
    )
    moved = 0
    for step in generation:
        state = generation.state
        lengths = state.cache.lengths.tolist()
        assert lengths == [n - 1 for n in state.host_lengths]
        assert state.cache.longest == max(lengths)
        moved += any(own[:length] != list(range(1, length + 1)) for own, length in zip(
            step.acceptance.path.tolist(), step.acceptance.length.tolist(), strict=True
        ))  # fmt: skip
        if generation.metrics.stats().target_forwards % 3:
            continue
        compare(engine.target, state)
    compare(engine.target, generation.state)
    assert moved, "no accepted path ever had to be moved: the test would miss errors in keep"


def compare(target: HFTarget, state: Any) -> None:
    for row, length in enumerate(state.cache.lengths.tolist()):
        wanted = fresh(target, state.tokens[row, : max(length, 1)].tolist())
        for own, reference in zip(stores(state.cache), wanted, strict=True):
            torch.testing.assert_close(own[row, :length], reference[:length], atol=1e-9, rtol=1e-9)


def test_lengths_are_one_less_than_tokens_in_a_resumed_session(dynamic: Engine) -> None:
    session = dynamic.session()
    first = session.generate(tiny.PROMPTS[0], max_new_tokens=6, temperature=0)
    longer = [*tiny.PROMPTS[0], *first.token_ids, 3, 9]
    generation = session.start(longer, max_new_tokens=9, temperature=0)
    for _ in generation:
        assert generation.state.cache.lengths.tolist() == [
            n - 1 for n in generation.state.host_lengths
        ]
    compare(dynamic.target, generation.state)


def filled(rows: int, capacity: int, lengths: list[int], dtype: Any = torch.float64) -> KVCache:
    """A cache of random contents with the given lengths."""
    cache = KVCache(SHAPES, rows, capacity, dtype, torch.device("cpu"))
    for group in cache.groups.values():
        group.keys.normal_()
        group.values.normal_()
    cache.advance(torch.tensor(lengths), max(lengths))
    return cache


@given(st.data())
def test_keep_moves_each_rows_path_and_touches_no_other_row(data: st.DataObject) -> None:
    capacity, rows = BUCKET, data.draw(st.integers(1, 3))
    # Lengths reach up to the capacity: a finished row there must not spill into its neighbour.
    lengths = [
        data.draw(st.sampled_from([0, 1, 7, capacity - 9, capacity - 2])) for _ in range(rows)
    ]
    width = data.draw(st.integers(1, 5))
    room = [min(width, capacity - n) for n in lengths]
    counts = [data.draw(st.integers(0, room[row])) for row in range(rows)]
    scratch = [
        sorted(data.draw(st.sets(st.integers(0, 8), min_size=width, max_size=width)))
        for _ in range(rows)
    ]
    cache = filled(rows, capacity, lengths)
    before = [store.clone() for store in stores(cache)]
    after = [n + c for n, c in zip(lengths, counts, strict=True)]
    cache.keep(torch.tensor(scratch), torch.tensor(counts), max(after))
    assert cache.lengths.tolist() == after and cache.longest == max(after)
    for old, new in zip(before, stores(cache), strict=True):
        for row, (start, count) in enumerate(zip(lengths, counts, strict=True)):
            assert torch.equal(new[row, :start], old[row, :start]), "committed slots stay"
            reachable = [s for s in scratch[row][:count] if start + s < capacity]
            wanted = old[row, [start + s for s in reachable]]
            assert torch.equal(new[row, start : start + len(reachable)], wanted)


@given(st.lists(st.integers(0, BUCKET), min_size=1, max_size=3), st.integers(1, 400))
def test_growing_keeps_what_is_stored(lengths: list[int], capacity: int) -> None:
    cache = filled(len(lengths), BUCKET, lengths)
    before = [store.clone() for store in stores(cache)]
    cache.grow(capacity)
    assert cache.capacity >= capacity and cache.capacity % BUCKET == 0
    for old, new in zip(before, stores(cache), strict=True):
        assert new.shape[1] == cache.capacity
        for row, length in enumerate(lengths):
            assert torch.equal(new[row, :length], old[row, :length])
    # Writes after growing land in their own rows.
    cache.reserve(2)
    states = torch.randn(len(lengths), 2, 2, 3, dtype=torch.float64)
    cache.layers[0].update(states, torch.randn(len(lengths), 2, 2, 5, dtype=torch.float64))
    for row, length in enumerate(lengths):
        written = stores(cache)[0][row, length : length + 2].transpose(0, 1)
        assert torch.equal(written, states[row])


def test_truncating_forgets_and_the_next_forward_overwrites(model: Any) -> None:
    target = HFTarget(model)
    text = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    with torch.inference_mode():
        cache = target.new_cache(2, 16)
        target.prefill(torch.tensor(text), cache)
        cache.advance(torch.tensor([6, 6]), 6)
        cache.truncate(torch.tensor([4, 2]), 4)
        tokens = torch.tensor([[20, 21], [22, 23]])
        positions = cache.lengths[:, None] + torch.arange(2)
        causal = torch.ones(2, 2, dtype=torch.bool).tril().expand(2, -1, -1)
        hidden = target.forward(tokens, positions, causal, cache).last
        for row, whole in enumerate(([1, 2, 3, 4, 20, 21], [7, 8, 22, 23])):
            alone = target.prefill(torch.tensor([whole]), target.new_cache(1, 16)).last
            torch.testing.assert_close(hidden[row], alone[0, -2:])


def test_a_module_that_hands_on_its_arguments_takes_the_cache_by_the_usual_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrapper(torch.nn.Module):
        def forward(self, *given: Any, **named: Any) -> Any:
            return given, named

    forwards = {
        "cache": lambda self, cache=None: None,
        "past_key_values": lambda self, past_key_values=None: None,
    }
    for name, forward in forwards.items():
        monkeypatch.setattr(transformers.LlamaModel, "forward", forward)
        assert cache_keyword(type(name, (Wrapper,), {})) == name


def test_a_forward_of_nothing_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        HFTarget(model).new_cache(1, 8).reserve(0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_one_token_sees_as_many_slots_as_a_tree(dtype: torch.dtype) -> None:
    """Over other slots attention sums in another order, and the texts of plain decoding part."""
    target = HFTarget(tiny.make_model(dtype=dtype))
    views = []
    with torch.inference_mode():
        for count in (1, 3):
            cache = target.new_cache(1, 64)
            target.prefill(torch.tensor([[3, 5, 9]]), cache)
            cache.advance(torch.tensor([3]), 3)
            tokens, tree_mask = torch.arange(count)[None], torch.eye(count, dtype=torch.bool)[None]
            target.forward(tokens, torch.full((1, count), 3), tree_mask, cache)
            views.append(cache.view)
    assert views[0] == views[1]
