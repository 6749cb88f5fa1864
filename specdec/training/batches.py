"""Windows of whole documents, in an order that a seed and the epoch decide.

Attention over a window costs its width for every token, so documents go into windows that are not
much wider than they are: one width for all windows of a batch, a power of two.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specdec.models.hidden_states import HiddenStates
from specdec.training.batch import Batch
from specdec.training.hidden_state_store import HiddenStateStore

_POOL = 512  # documents that are packed together: a window is made of any of them
_NARROWEST = 128


@dataclass(frozen=True)
class Position:
    """Where in the data a run is.

    Attributes:
        epoch: passes that are finished.
        batch: batches of the current one that are finished.
    """

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Dealt:
    """Batches that are worked on at the same time.

    Attributes:
        batches: one for each process.
        position: behind all of them.
        tokens: of their documents.
    """

    batches: Sequence[Sequence[Sequence[int]]]
    position: Position
    tokens: int


class Batches:
    """Batches without end: the same for the same arguments, from any position on.

    Every document comes once in an epoch, none is split, and documents never see each other.

    Args:
        features: hidden states, tokens and masks.
        documents: numbers of those to train on.
        length: tokens of a window at most; longer documents are cut.
        tokens: of a batch, padding included; the last of an epoch and a width may have fewer.
        seed: of the order.
    """

    def __init__(
        self,
        features: HiddenStateStore,
        documents: Sequence[int],
        *,
        length: int,
        tokens: int,
        seed: int,
    ) -> None:
        self._features, self.documents = features, list(documents)
        self.length, self.tokens, self.seed = length, tokens, seed
        self._planned: tuple[int, list[list[list[int]]]] | None = None

    @property
    def tokens_of_an_epoch(self) -> int:
        """Of all documents, those that are cut as they are read."""
        lengths = self._features.documents.lengths
        return sum(min(lengths[document], self.length) for document in self.documents)

    def epoch(self, number: int) -> list[list[list[int]]]:
        """The batches of an epoch: windows, which are lists of documents."""
        if self._planned is None or self._planned[0] != number:
            self._planned = number, self._plan(number)
        return self._planned[1]

    def _plan(self, number: int) -> list[list[list[int]]]:
        order = random.Random(f"{self.seed} {number}")
        documents = list(self.documents)
        order.shuffle(documents)
        lengths = self._features.documents.lengths
        planned = plan(documents, lengths, self.length, self.tokens, order)
        order.shuffle(planned)
        return planned

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

    def dealt(self, position: Position, count: int) -> Iterator[Dealt]:
        """The batches from a position on, ``count`` at a time: one for each process."""
        ahead = self.after(position)
        lengths = self._features.documents.lengths
        while True:
            places, batches = zip(*(next(ahead) for _ in range(count)), strict=True)
            read = (d for windows in batches for window in windows for d in window)
            yield Dealt(batches, places[-1], sum(min(lengths[d], self.length) for d in read))

    def load(self, windows: Sequence[Sequence[int]]) -> Batch:
        """Read what a batch needs."""
        return load(self._features, windows, self.length)


def plan(
    documents: Sequence[int],
    lengths: Sequence[int],
    length: int,
    tokens: int,
    order: random.Random | None = None,
) -> list[list[list[int]]]:
    """Documents as batches of windows.

    Args:
        lengths: of all documents.
        length, tokens: as for :class:`Batches`.
        order: shuffles windows among batches; left out, they stay in order.
    """
    by_width: dict[int, list[int]] = {}
    for document in documents:
        by_width.setdefault(width_for(lengths[document], length), []).append(document)
    batches = []
    for width, own in sorted(by_width.items()):
        windows: list[list[int]] = []
        for start in range(0, len(own), _POOL):
            windows += packed(own[start : start + _POOL], lengths, width)
        if order is not None:
            order.shuffle(windows)
        rows = max(1, tokens // width)
        batches += [windows[i : i + rows] for i in range(0, len(windows), rows)]
    return batches


def width_for(size: int, length: int) -> int:
    """The width of the windows that a document of ``size`` tokens goes into."""
    return min(length, max(_NARROWEST, 1 << (size - 1).bit_length()))


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


def load(features: HiddenStateStore, windows: Sequence[Sequence[int]], length: int) -> Batch:
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
    return Batch(tokens, number, positions, answer, HiddenStates(last, tuple(aux)), best)
