"""Keyed randomness: every random number is a pure function of what it is for.

The generator is counter-based (the splitmix64 finaliser over a hashed key) in integer tensor
operations, so the same key gives the same number on every device, at every batch size and under
every strategy. That is what lets speculation reproduce plain decoding token for token.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from specdec.errors import OptionError
from specdec.law import Law


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
        position: ``[B]`` int64. ``TARGET``: index of the drawn token in the row's whole sequence,
            prompt included. ``DRAFT`` and ``ACCEPT``: index of the root.
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
    def categorical(self, law: Law, key: Key) -> Tensor:
        """One token per row from ``law``: ``[B]`` int64."""

    @abstractmethod
    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        """True with the given probability ``[B]``: ``[B]`` bool."""


class KeyedRandomness(Randomness):
    """The generator that production uses.

    Args:
        seeds: ``[B]`` int64, one per row.
    """

    def __init__(self, seeds: Tensor) -> None:
        self.seeds = seeds

    def categorical(self, law: Law, key: Key) -> Tensor:
        """The exponential race: ``argmin_x E_x / p_x`` has law ``p``."""
        if law.point is not None:
            return law.point
        probs = law.probs
        tokens = torch.arange(probs.shape[-1], device=probs.device)
        race = self.exponential(key, tokens) / probs.to(torch.float64)
        return race.argmin(dim=-1)

    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        uniform = _uniform(_mix(self._counter(key)))
        return uniform < probability.to(torch.float64)

    def exponential(self, key: Key, tokens: Tensor) -> Tensor:
        """Exponential noise of each token at ``key``.

        Args:
            tokens: ``[n]`` or ``[B, n]`` int64 token ids.

        Returns:
            ``[B, n]`` float64, finite and greater than 0.
        """
        return -_uniform(_mix(self._counter(key)[:, None] + tokens * _GOLDEN)).log()

    def _counter(self, key: Key) -> Tensor:
        counter = _mix(self.seeds + _GOLDEN)
        for field in (int(key.stream), key.position, key.node, key.draw):
            step = (field + 1) * _GOLDEN
            counter = _mix(counter + (_signed(step) if isinstance(step, int) else step))
        return counter


def row_seeds(seed: int | Sequence[int] | None, rows: int) -> list[int]:
    """One seed per row: an int is hashed with the row's index, a list is taken as it is.

    Raises:
        OptionError: a list whose length is not the number of rows, or a value that is not an int.
    """
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


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014) on int64 with wrap-around."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _uniform(bits: Tensor) -> Tensor:
    """Float64 in the open interval (0, 1): 52 bits, so that no rounding reaches either end."""
    return (_shift_right(bits, 12).to(torch.float64) + 0.5) * 2.0**-52
