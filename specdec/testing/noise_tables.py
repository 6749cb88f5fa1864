"""Noise that is written down, in place of a generator."""

from __future__ import annotations

import torch
from torch import Tensor

from specdec.decoding.randomness import Key, RowRandomness, Stream
from specdec.distribution import Distribution


class NoiseTable(RowRandomness):
    """Any table of positive numbers, one row for a token position.

    Args:
        noise: in tenths, for each position the noise of every token; positions past the end start
            again. In a larger vocabulary neighbouring tokens share theirs.
        rows: ``[B]`` int64, for each row its index in the batch at first; None for all of it.
        vocabulary: how many tokens there are; as many as have noise unless given.
    """

    def __init__(
        self,
        noise: tuple[tuple[int, ...], ...],
        rows: Tensor | None = None,
        vocabulary: int | None = None,
    ) -> None:
        self._given, self._rows, self._vocabulary = noise, rows, vocabulary
        written = torch.tensor(noise, dtype=torch.float64) / 10
        size = vocabulary or written.shape[1]
        self._noise = written[:, torch.arange(size) * written.shape[1] // size]

    def categorical(self, distribution: Distribution, key: Key) -> Tensor:
        return (self._at(key) / distribution.probs.double()).argmin(dim=-1)

    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        return (-self._at(key)[:, 0]).exp() < probability.double()

    def exponential(self, key: Key, tokens: Tensor) -> Tensor:
        noise = self._at(key)
        return noise.gather(1, tokens.expand(len(noise), -1))

    def keep_rows(self, rows: Tensor) -> NoiseTable:
        kept = rows if self._rows is None else self._rows[rows]
        return NoiseTable(self._given, kept, self._vocabulary)

    def _at(self, key: Key) -> Tensor:
        rows = torch.arange(len(key.position)) if self._rows is None else self._rows
        entry = key.position + rows + (0 if key.stream is Stream.TARGET else key.draw + key.node)
        return self._noise[entry % len(self._noise)]
