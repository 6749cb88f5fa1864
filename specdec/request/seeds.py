"""Row seeds: one for each prompt of a call."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from specdec.errors import OptionError
from specdec.request.generation_fields import plain
from specdec.splitmix import GOLDEN, mix, signed


def row_seeds(seed: Any, rows: int, samples: int = 1) -> list[int]:
    """One seed per row: an int is hashed with the row's index, a list is taken as it is.

    Args:
        seed: an int, a sequence of them or None, or the same from numpy or torch.
        samples: rows of each prompt.

    Raises:
        OptionError: a list whose length is not the number of rows, or a value that is not an int.
    """
    seed = plain(seed)
    if seed is None:
        seed = secrets.randbits(63)
    if isinstance(seed, int) and not isinstance(seed, bool):
        return _hashed(seed, torch.arange(rows))
    whole = isinstance(seed, Sequence) and all(type(s) is int for s in seed)
    if isinstance(seed, (bool, str)) or not whole:
        raise OptionError(f"seed must be an int or one int per prompt, not {seed!r}")
    seeds = list(seed)
    if len(seeds) != rows:
        which = f"{rows} prompts" if samples == 1 else f"{rows} texts ({samples} of each prompt)"
        each = "prompt" if samples == 1 else "text"
        raise OptionError(
            f"seed has {len(seeds)} entries for {which}: give one int, or one per {each}"
        )
    return [signed(s) for s in seeds]


def seed_of_row(seed: int, row: int) -> int:
    """The seed that ``row_seeds`` gives a row for an int."""
    return _hashed(seed, torch.tensor([row]))[0]


def _hashed(seed: int, rows: Tensor) -> list[int]:
    """A seed for each of ``rows [B]`` int64."""
    base = torch.full(rows.shape, signed(seed), dtype=torch.int64)
    hashed: list[int] = mix(mix(base) + (rows + 1) * GOLDEN).tolist()
    return hashed
