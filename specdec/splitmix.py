"""Hashing of 64-bit integers in tensor operations, and uniform numbers from hashes."""

from __future__ import annotations

from torch import Tensor


def signed(value: int) -> int:
    """``value`` modulo 2**64 as a signed 64-bit integer."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


GOLDEN = signed(0x9E3779B97F4A7C15)
_MIX_1 = signed(0xBF58476D1CE4E5B9)
_MIX_2 = signed(0x94D049BB133111EB)


def mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014) on int64 with wrap-around."""
    return mix_(x.clone())


def mix_(x: Tensor) -> Tensor:
    """The same in place: at the size of a vocabulary, memory traffic is what it costs."""
    x.bitwise_xor_(_shift_right(x, 30)).mul_(_MIX_1)
    x.bitwise_xor_(_shift_right(x, 27)).mul_(_MIX_2)
    return x.bitwise_xor_(_shift_right(x, 31))


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def uniform(bits: Tensor) -> Tensor:
    """Float64 in the open interval (0, 1): 52 bits, so that no rounding reaches either end."""
    return (bits >> 12).double().mul_(2.0**-52).add_(0.5 + 2.0**-53)
