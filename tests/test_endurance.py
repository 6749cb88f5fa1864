"""An engine outlives what happens to its generations: many of them, and those that end badly."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import tiny
import torch

from specdec import Engine
from specdec.decoding.acceptors import Match
from specdec.drafting.network_drafter import NetworkProposer

SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 3}


def tensors_alive() -> tuple[int, int]:
    """Tensors that something still holds, and their bytes."""
    gc.collect()
    alive = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
    return len(alive), sum(x.numel() * x.element_size() for x in alive)


def resident_kilobytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4


def test_generations_leave_no_tensor_behind(eagle: Engine) -> None:
    run = [eagle.generate(tiny.PROMPTS, **SETTINGS) for _ in range(2)]
    del run
    before = tensors_alive()
    for _ in range(10):
        eagle.generate(tiny.PROMPTS, **SETTINGS)
    assert tensors_alive() == before


def test_a_generation_that_is_over_frees_its_caches_at_once(eagle: Engine) -> None:
    """Without Python's collector, which does not run because a GPU is full."""
    gc.collect()
    gc.disable()
    try:
        generation = eagle.start(tiny.PROMPTS, **SETTINGS)
        for _ in generation:
            pass
        generation.results()
        proposer = generation._draft_phase.proposer
        assert isinstance(proposer, NetworkProposer) and generation.state.cache is not None
        caches = [weakref.ref(generation.state.cache), weakref.ref(proposer.cache)]
        del generation, proposer, _
        assert [cache() for cache in caches] == [None, None]
    finally:
        gc.enable()


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_generations(eagle: Engine) -> None:
    for _ in range(100):
        eagle.generate(tiny.PROMPTS, **SETTINGS)
    before = resident_kilobytes()
    for _ in range(1000):
        eagle.generate(tiny.PROMPTS, **SETTINGS)
    assert resident_kilobytes() - before < 4096


def test_a_stream_that_is_left_does_not_change_the_next_generation(eagle: Engine) -> None:
    whole = tiny.tokens(eagle, tiny.PROMPTS[0], **SETTINGS)
    session = eagle.session()
    stream = session.stream(tiny.PROMPTS[0], **SETTINGS)
    next(stream)
    stream.close()
    assert session.generate(tiny.PROMPTS[0], **SETTINGS).token_ids == whole
    assert tiny.tokens(eagle, tiny.PROMPTS[0], **SETTINGS) == whole


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError])
@pytest.mark.parametrize(("owner", "method"), [(NetworkProposer, "propose"), (Match, "accept")])
def test_a_part_that_raises_leaves_the_engine_as_it_was(
    eagle: Engine, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, error: Any
) -> None:
    whole = tiny.tokens(eagle, tiny.PROMPTS, **SETTINGS)
    true, calls = getattr(owner, method), 0

    def now_and_then(self: Any, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise error("in the middle of a step")
        return true(self, *given)

    session = eagle.session()
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, now_and_then)
        with pytest.raises(error):
            session.generate(tiny.PROMPTS[0], **SETTINGS)
    assert session.generate(tiny.PROMPTS[0], **SETTINGS).token_ids == tiny.tokens(
        eagle, tiny.PROMPTS[0], **SETTINGS
    )
    assert tiny.tokens(eagle, tiny.PROMPTS, **SETTINGS) == whole
