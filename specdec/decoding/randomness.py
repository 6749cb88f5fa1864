"""Keyed randomness: every random number is a pure function of what it is for.

The generator is counter-based (the splitmix64 finaliser over a hashed key) in integer tensor
operations, so the same key gives the same number on every device, at every batch size and under
every strategy. That is what lets speculation reproduce plain decoding token for token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from specdec.distribution import Distribution
from specdec.splitmix import GOLDEN, mix, mix_, signed, uniform


class Stream(IntEnum):
    """Who draws. ``TARGET`` is keyed by position alone; the other two never repeat a key."""

    TARGET = 0
    DRAFT = 1
    ACCEPT = 2


@dataclass(frozen=True)
class Key:
    """What a random draw is for.

    Attributes:
        stream: the domain of the draw.
        position: ``[B]`` int64 (``[B, m]`` where noise is asked for). ``TARGET``: index of the
            drawn token in the row's whole sequence, prompt included. ``DRAFT`` and ``ACCEPT``:
            index of the root.
        node: ``[B]`` int64 or int, the tree node the draw belongs to; 0 for ``TARGET``.
        draw: which of the node's draws this is; 0 for ``TARGET``.
    """

    stream: Stream
    position: Tensor
    node: Tensor | int = 0
    draw: int = 0


class Randomness(ABC):
    """Where acceptors and sampled drafts draw; nothing in a strategy may draw anywhere else."""

    @abstractmethod
    def categorical(self, distribution: Distribution, key: Key) -> Tensor:
        """One token per row from ``distribution``: ``[B]`` int64."""

    @abstractmethod
    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        """True with the given probability ``[B]``: ``[B]`` bool."""

    def exponential(self, key: Key, tokens: Tensor) -> Tensor | None:
        """The noise E that decides the draw at ``key``: its token is ``argmin E / p``.

        A coupled policy reads the ``TARGET`` stream while drafting: exact if the acceptor is
        ``seed_exact``.

        Args:
            tokens: ``[n]`` or ``[B, n]`` int64 token ids.

        Returns:
            ``[B, n]`` floating point, positive; None from a generator that draws another way.
        """
        return None

    def categorical_ahead(
        self, distribution: Distribution, first: Key, ahead: Tensor, count: int
    ) -> Tensor | None:
        """The tokens that :meth:`categorical` draws from many distributions of each row, at once.

        Args:
            distribution: ``[B, n, V]``.
            first: the key at the nearest position, ``[B]``.
            ahead: ``[B, n]`` int64, how many positions past it each distribution's draw is.
            count: more than any of them.

        Returns:
            ``[B, n]`` int64; None from a generator that makes one draw a row.
        """
        return None


class RowRandomness(Randomness):
    """A generator that goes on when rows leave the batch; with any other finished rows stay."""

    @abstractmethod
    def keep_rows(self, rows: Tensor) -> RowRandomness:
        """The generator of ``rows [m]`` int64 alone."""


class KeyedRandomness(RowRandomness):
    """The generator that production uses.

    Args:
        seeds: ``[B]`` int64, one per row.
    """

    def __init__(self, seeds: Tensor) -> None:
        self.seeds = seeds
        self._base = mix(seeds + GOLDEN)
        self._vocabulary = torch.arange(0, device=seeds.device)

    def categorical(self, distribution: Distribution, key: Key) -> Tensor:
        """The exponential race: ``argmin_x E_x / p_x`` has distribution ``p``."""
        if distribution.point is not None:
            return distribution.point
        probs = distribution.probs
        if len(self._vocabulary) != probs.shape[-1]:
            self._vocabulary = torch.arange(probs.shape[-1], device=probs.device)
        race = self.exponential(key, self._vocabulary)
        return race.div_(probs).argmin(dim=-1)

    def categorical_ahead(
        self, distribution: Distribution, first: Key, ahead: Tensor, count: int
    ) -> Tensor:
        probs, rows = distribution.probs, torch.arange(len(ahead), device=ahead.device)
        positions = first.position[:, None] + torch.arange(count, device=ahead.device)
        vocabulary = torch.arange(distribution.size, device=ahead.device)
        noise = self.exponential(replace(first, position=positions), vocabulary).flatten(0, 1)
        race = noise.index_select(0, (ahead + rows[:, None] * count).flatten())
        return race.div_(probs.flatten(0, 1)).argmin(dim=-1).view_as(ahead)

    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        return uniform(mix(self.counter(key))) < probability.to(torch.float64)

    def exponential(self, key: Key, tokens: Tensor) -> Tensor:
        """Exponential noise of each token at ``key``.

        Args:
            tokens: ``[n]`` or ``[B, n]`` int64 token ids; ``[n]`` alone for positions ``[B, m]``.

        Returns:
            ``[B, n]`` or ``[B, m, n]`` float64, finite and greater than 0.
        """
        bits = mix_(tokens * GOLDEN + self.counter(key)[..., None])
        return uniform(bits).log_().neg_()

    def keep_rows(self, rows: Tensor) -> KeyedRandomness:
        return KeyedRandomness(self.seeds.index_select(0, rows))

    def counter(self, key: Key) -> Tensor:
        """The hash of a key that its numbers are made from: ``[B]`` or ``[B, m]`` int64."""
        fixed = int(key.stream) * _STREAM + key.draw * _DRAW
        base = self._base if key.position.dim() == 1 else self._base[:, None]
        counter = base + key.position * _POSITION
        if isinstance(key.node, int):
            fixed += key.node * _NODE
        else:
            counter = counter + key.node * _NODE
        return mix_(counter + signed(fixed))


# A key is a sum of its fields times these (xxHash's 64-bit primes). Two keys of one row are never
# equal for nodes below 2**15, draws up to 300 and positions up to 10**11: the tests check it.
_POSITION = signed(0x9E3779B185EBCA87)
_NODE = signed(0xC2B2AE3D27D4EB4F)
_DRAW = signed(0x165667B19E3779F9)
_STREAM = signed(0x85EBCA77C2B2AE63)
