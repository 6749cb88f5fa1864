"""Windows of whole documents, in an order that a seed and the epoch decide."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specdec.models.hf_target import Hidden
from specdec.training.batch import Batch
from specdec.training.features import Features

_POOL = 512  # documents that are packed together: a window is made of any of them


@dataclass(frozen=True)
class Position:
    """Where in the data a run is.

    Attributes:
        epoch: passes that are finished.
        batch: batches of the current one that are finished.
    """

    epoch: int = 0
    batch: int = 0


class Batches:
    """Batches without end: the same for the same arguments, from any position on.

    Every document comes once in an epoch, none is split, and documents never see each other.

    Args:
        features: hidden states, tokens and masks.
        documents: numbers of those to train on.
        length: tokens of a window.
        rows: windows of a batch; the last one of an epoch may have fewer.
        seed: of the order.
    """

    def __init__(
        self, features: Features, documents: Sequence[int], *, length: int, rows: int, seed: int
    ) -> None:
        self._features, self.documents = features, list(documents)
        self.length, self.rows, self.seed = length, rows, seed
        self._planned: tuple[int, list[list[list[int]]]] | None = None

    def epoch(self, number: int) -> list[list[list[int]]]:
        """The batches of an epoch: windows, which are lists of documents."""
        if self._planned is None or self._planned[0] != number:
            self._planned = number, self._plan(number)
        return self._planned[1]

    def _plan(self, number: int) -> list[list[list[int]]]:
        order = random.Random(f"{self.seed} {number}")
        documents = list(self.documents)
        order.shuffle(documents)
        windows = []
        for start in range(0, len(documents), _POOL):
            windows += packed(
                documents[start : start + _POOL], self._features.documents.lengths, self.length
            )
        order.shuffle(windows)
        return [windows[i : i + self.rows] for i in range(0, len(windows), self.rows)]

    def after(self, position: Position) -> Iterator[tuple[Position, list[list[int]]]]:
        """The batches from a position on, each with the position behind it."""
        epoch, batch = position.epoch, position.batch
        while True:
            planned = self.epoch(epoch)
            for index in range(batch, len(planned)):
                last = index + 1 == len(planned)
                behind = Position(epoch + 1, 0) if last else Position(epoch, index + 1)
                yield behind, planned[index]
            epoch, batch = epoch + 1, 0

    def load(self, windows: Sequence[Sequence[int]]) -> Batch:
        """Read what a batch needs."""
        return load(self._features, windows, self.length)


def packed(documents: Sequence[int], lengths: Sequence[int], length: int) -> list[list[int]]:
    """Whole documents packed into windows of ``length`` tokens: the longest first, each into the
    fullest window that has room.

    A document that is longer than a window has one for itself, cut when it is read.
    """
    windows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, window), ascending
    for document in sorted(documents, key=lambda each: -lengths[each]):
        size = min(lengths[document], length)
        place = bisect_left(room, (size, -1))
        if place == len(room):
            windows.append([])
            left, window = length, len(windows) - 1
        else:
            left, window = room.pop(place)
        windows[window].append(document)
        if left > size:
            insort(room, (left - size, window))
    return windows


def load(features: Features, windows: Sequence[Sequence[int]], length: int) -> Batch:
    """The windows as tensors, as wide as the longest needs."""
    documents = features.documents
    sizes = [[min(documents.lengths[each], length) for each in window] for window in windows]
    shape = len(windows), max(map(sum, sizes))
    tokens, positions, best = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    answer = torch.zeros(shape, dtype=torch.bool)
    number = torch.full(shape, -1)
    states: list[Tensor] = []
    for row, (window, lengths) in enumerate(zip(windows, sizes, strict=True)):
        at = 0
        for index, (document, size) in enumerate(zip(window, lengths, strict=True)):
            place, start = slice(at, at + size), documents.starts[document]
            tokens[row, place] = documents.tokens[start : start + size]
            answer[row, place] = documents.answer[start : start + size]
            positions[row, place] = torch.arange(size)
            number[row, place] = index
            hidden, likeliest = features.hidden(document)
            best[row, place] = likeliest[:size]
            values = (hidden.last, *hidden.aux)
            if not states:
                states = [each.new_zeros(*shape, each.shape[-1]) for each in values]
            for whole, part in zip(states, values, strict=True):
                whole[row, place] = part[:size]
            at += size
    last, *aux = states
    return Batch(tokens, number, positions, answer, Hidden(last, tuple(aux)), best)
