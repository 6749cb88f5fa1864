"""Keyed randomness: every random number is a pure function of what it is for.

The generator is counter-based (the splitmix64 finaliser over a hashed key) in integer tensor
operations, so the same key gives the same number on every device, at every batch size and under
every strategy. That is what lets speculation reproduce plain decoding token for token.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from specdec.distribution import Distribution
from specdec.errors import OptionError
from specdec.request.generation_fields import plain


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

        A policy may look at the ``TARGET`` stream while drafting, if the acceptor is ``match``.

        Args:
            tokens: ``[n]`` or ``[B, n]`` int64 token ids.

        Returns:
            ``[B, n]`` floating point, positive; None from a generator that draws another way.
        """
        return None

    def categorical_ahead(
        self, distribution: Distribution, first: Key, ahead: Tensor, reach: int
    ) -> Tensor | None:
        """The tokens that :meth:`categorical` draws from many distributions of each row, at once.

        Args:
            distribution: ``[B, n, V]``.
            first: the key at the nearest position, ``[B]``.
            ahead: ``[B, n]`` int64, how many positions past it each distribution's draw is.
            reach: more than any of them.

        Returns:
            ``[B, n]`` int64; None from a generator that makes one draw a row.
        """
        return None

    def keep_rows(self, rows: Tensor) -> Randomness:
        """The generator of ``rows [m]`` int64 alone; without it finished rows stay in the batch."""
        raise NotImplementedError


class KeyedRandomness(Randomness):
    """The generator that production uses.

    Args:
        seeds: ``[B]`` int64, one per row.
    """

    def __init__(self, seeds: Tensor) -> None:
        self.seeds = seeds
        self._base = _mix(seeds + _GOLDEN)
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
        self, distribution: Distribution, first: Key, ahead: Tensor, reach: int
    ) -> Tensor:
        probs, rows = distribution.probs, torch.arange(len(ahead), device=ahead.device)
        positions = first.position[:, None] + torch.arange(reach, device=ahead.device)
        vocabulary = torch.arange(distribution.size, device=ahead.device)
        noise = self.exponential(replace(first, position=positions), vocabulary).flatten(0, 1)
        race = noise.index_select(0, (ahead + rows[:, None] * reach).flatten())
        return race.div_(probs.flatten(0, 1)).argmin(dim=-1).view_as(ahead)

    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        drawn = uniform(_mix(self.counter(key)))
        return drawn < probability.to(torch.float64)

    def exponential(self, key: Key, tokens: Tensor) -> Tensor:
        """Exponential noise of each token at ``key``.

        Args:
            tokens: ``[n]`` or ``[B, n]`` int64 token ids; ``[n]`` alone for positions ``[B, m]``.

        Returns:
            ``[B, n]`` or ``[B, m, n]`` float64, finite and greater than 0.
        """
        bits = _mix_(tokens * _GOLDEN + self.counter(key)[..., None])
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
        return _mix_(counter + _signed(fixed))


def row_seeds(seed: Any, rows: int) -> list[int]:
    """One seed per row: an int is hashed with the row's index, a list is taken as it is.

    Args:
        seed: an int, a sequence of them or None, or the same from numpy or torch.

    Raises:
        OptionError: a list whose length is not the number of rows, or a value that is not an int.
    """
    seed = plain(seed)
    if seed is None:
        seed = secrets.randbits(63)
    if isinstance(seed, int) and not isinstance(seed, bool):
        base = torch.full((rows,), _signed(seed), dtype=torch.int64)
        hashed: list[int] = _mix(_mix(base) + (torch.arange(rows) + 1) * _GOLDEN).tolist()
        return hashed
    whole = isinstance(seed, Sequence) and all(type(s) is int for s in seed)
    if isinstance(seed, (bool, str)) or not whole:
        raise OptionError(f"seed must be an int or one int per prompt, not {seed!r}")
    seeds = list(seed)
    if len(seeds) != rows:
        raise OptionError(
            f"seed has {len(seeds)} entries for {rows} prompts: give one int, or one per prompt"
        )
    return [_signed(s) for s in seeds]


def _signed(value: int) -> int:
    """``value`` modulo 2**64 as a signed 64-bit integer."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


# A key is a sum of its fields times these (xxHash's 64-bit primes). Two keys of one row are never
# equal for nodes below 2**15, draws up to 300 and positions up to 10**11: the tests check it.
_POSITION = _signed(0x9E3779B185EBCA87)
_NODE = _signed(0xC2B2AE3D27D4EB4F)
_DRAW = _signed(0x165667B19E3779F9)
_STREAM = _signed(0x85EBCA77C2B2AE63)


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014) on int64 with wrap-around."""
    return _mix_(x.clone())


def _mix_(x: Tensor) -> Tensor:
    """The same in place: at the size of a vocabulary, memory traffic is what it costs."""
    x.bitwise_xor_(_shift_right(x, 30)).mul_(_MIX_1)
    x.bitwise_xor_(_shift_right(x, 27)).mul_(_MIX_2)
    return x.bitwise_xor_(_shift_right(x, 31))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def uniform(bits: Tensor) -> Tensor:
    """Float64 in the open interval (0, 1): 52 bits, so that no rounding reaches either end."""
    return (bits >> 12).double().mul_(2.0**-52).add_(0.5 + 2.0**-53)
