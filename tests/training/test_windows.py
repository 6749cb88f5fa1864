"""Batches hold every document once an epoch, whole, in an order that can be taken up anywhere."""

from __future__ import annotations

import random
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from specdec.training.batch import Batch
from specdec.training.batches import Batches, Position, packed, plan, width_for
from specdec.training.hidden_state_store import HiddenStateStore
from specdec.training.loop import Run

LENGTH = 64


def batches(features: HiddenStateStore, seed: int = 0, tokens: int = 2 * LENGTH) -> Batches:
    documents = range(len(features.documents.lengths))
    return Batches(features, documents, length=LENGTH, tokens=tokens, seed=seed)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=60))
def test_packing_keeps_documents_whole_and_windows_full(lengths: list[int]) -> None:
    windows = packed(range(len(lengths)), lengths, LENGTH)
    assert sorted(d for window in windows for d in window) == list(range(len(lengths)))
    sizes = [sum(min(lengths[d], LENGTH) for d in window) for window in windows]
    assert max(sizes) <= LENGTH
    # No two windows that are left could have been one.
    assert sum(2 * size <= LENGTH for size in sizes) <= 1


@given(st.lists(st.integers(1, 1500), min_size=1, max_size=80), st.integers(64, 4096))
def test_windows_of_a_batch_are_of_one_width_near_their_documents(
    lengths: list[int], tokens: int
) -> None:
    batches = plan(range(len(lengths)), lengths, 1024, tokens, random.Random(0))
    found = [document for batch in batches for window in batch for document in window]
    assert sorted(found) == list(range(len(lengths)))
    for batch in batches:
        (width,) = {width_for(lengths[d], 1024) for window in batch for d in window}
        assert len(batch) * width <= max(tokens, width)
        for window in batch:
            assert sum(min(lengths[d], 1024) for d in window) <= width
            assert all(2 * lengths[d] > width or width == 128 for d in window)


def test_an_epoch_has_every_document_once(features: HiddenStateStore) -> None:
    own = batches(features)
    for number in range(3):
        found = [d for batch in own.epoch(number) for window in batch for d in window]
        assert sorted(found) == list(range(len(features.documents.lengths)))
    assert own.epoch(0) != own.epoch(1)
    two = len(own.epoch(0)) + len(own.epoch(1))
    given_out = [windows for _, windows in islice(own.after(Position()), two)]
    assert given_out == [*own.epoch(0), *own.epoch(1)]


def test_the_order_depends_on_the_seed_and_the_position_alone(features: HiddenStateStore) -> None:
    wanted = list(islice(batches(features).after(Position()), 40))
    assert list(islice(batches(features, seed=1).after(Position()), 40)) != wanted
    for index in (0, 3, 17, 30):
        position = wanted[index][0]
        rest = list(islice(batches(features).after(position), 40 - index - 1))
        assert rest == wanted[index + 1 :]


def test_a_batch_has_the_documents_side_by_side(features: HiddenStateStore) -> None:
    own = batches(features)
    windows = own.epoch(0)[0]
    batch = own.load(windows)
    assert batch.tokens.shape[0] == 2 and batch.tokens.shape[1] <= LENGTH
    for row, window in enumerate(windows):
        at = 0
        for number, document in enumerate(window):
            ids, answer = features.documents.document(document)
            hidden, best = features.hidden(document)
            place = slice(at, at + len(ids))
            assert batch.tokens[row, place].tolist() == ids
            assert batch.answer[row, place].tolist() == answer
            assert batch.positions[row, place].tolist() == list(range(len(ids)))
            assert batch.document[row, place].tolist() == [number] * len(ids)
            assert torch.equal(batch.hidden.last[row, place], hidden.last)
            assert torch.equal(batch.hidden.aux[1][row, place], hidden.aux[1])
            assert batch.best[row, place].tolist() == best.tolist()
            at += len(ids)
        assert bool((batch.document[row, at:] == -1).all())


def test_tokens_see_those_before_them_in_their_document(features: HiddenStateStore) -> None:
    own = batches(features)
    batch = own.load(own.epoch(0)[0])
    seen = batch.causal()[:, 0]
    for row, column in ((0, 0), (0, 20), (1, 33)):
        for other in range(batch.tokens.shape[1]):
            same = bool(batch.document[row, column] == batch.document[row, other])
            assert bool(seen[row, column, other]) == (same and other <= column)


def test_what_is_counted_ahead_is_an_answer_in_the_same_document(
    features: HiddenStateStore,
) -> None:
    own = batches(features)
    batch = own.load(own.epoch(0)[0])
    n = batch.tokens.shape[1]
    for ahead in (1, 2, 5):
        counted = batch.counted(ahead)
        for row in range(2):
            for t in range(n):
                follows = t + ahead < n and bool(
                    (batch.document[row, t] == batch.document[row, t + ahead])
                    & batch.answer[row, t + ahead]
                    & (batch.document[row, t] >= 0)
                )
                assert bool(counted[row, t]) == follows


def test_document_weights_count_every_document_the_same(features: HiddenStateStore) -> None:
    own = batches(features)
    batch = own.load(own.epoch(0)[0])
    counted = batch.counted(2)
    weights = batch.document_weights(counted)
    sums = [
        float(weights[row][batch.document[row] == number].sum())
        for row in range(2)
        for number in range(int(batch.document[row].max()) + 1)
    ]
    torch.testing.assert_close(torch.tensor(sums), torch.full((len(sums),), 1 / len(sums)))
    assert bool((weights[~counted] == 0).all())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_for_a_gpu_and_no_others_are_pinned(
    features: HiddenStateStore, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda own: pinned.append(own) or own)
    monkeypatch.setattr(Batch, "to", lambda own, device: own)
    alone = SimpleNamespace(process_index=0, num_processes=1)
    run: Any = SimpleNamespace(
        device=torch.device(device), accelerator=alone, batches=batches(features)
    )
    _, batch = next(Run._own_batches(run, Position()))
    whole = [batch.tokens, batch.document, batch.positions, batch.answer, batch.best]
    for each in (*whole, batch.hidden.last, *batch.hidden.aux):
        assert any(each is other for other in pinned) == (device == "cuda")
