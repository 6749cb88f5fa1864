"""Enumerated randomness: every outcome of every draw, with its probability.

Branches are rows of a batch. A row replays its script; the first draw past the scripts is open, and
the next wave has one row for each outcome that the open draw can have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from specdec.errors import PluginError
from specdec.law import Law
from specdec.randomness import Key, Randomness, Stream

T = TypeVar("T")
LIMIT = 1 << 14


class EnumerationError(AssertionError):
    """More outcomes than can be enumerated: the case is too large, nothing is known of the law."""


class EnumeratedRandomness(Randomness):
    """Row b replays the outcomes ``scripts[b]``; the first draw past them is the open one.

    Rows past the scripts are neighbours: they take the first outcome that they can have, always.

    Args:
        scripts: ``[R, n]`` int64, the outcomes of the first n draws of each branch.

    Attributes:
        open: ``[R, outcomes]`` float64, the probabilities of the open draw; None if the scripts
            reach to the end.
        drafting: ``[B]`` bool, rows whose drafts matter; None for all.
        asking: ``[B]`` bool, rows that the acceptor is deciding on; None for all. For other rows a
            draw does not matter and is no draw: the first outcome is taken.
    """

    def __init__(self, scripts: Tensor) -> None:
        self.scripts = scripts
        self.open: Tensor | None = None
        self.drafting: Tensor | None = None
        self.asking: Tensor | None = None
        self._draws = 0
        self._keys: list[tuple[Tensor, Tensor, Key]] = []

    def categorical(self, law: Law, key: Key) -> Tensor:
        return self._next(law.probs.double().nan_to_num(nan=0.0).clamp(min=0), key)

    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        p = probability.double().nan_to_num(nan=0.0).clamp(0, 1)
        return self._next(torch.stack([1 - p, p], dim=1), key).bool()

    def _next(self, probs: Tensor, key: Key) -> Tensor:
        branches, decided = self.scripts.shape
        concerned = self.drafting if key.stream is Stream.DRAFT else self.asking
        if concerned is None:
            concerned = torch.ones(len(probs), dtype=torch.bool)
        self._check_key(key, concerned)
        default = (probs > 0).double().argmax(dim=1)
        index, self._draws = self._draws, self._draws + 1
        if index >= decided:
            if self.open is None:
                # A row without any outcome draws where nothing depends on it.
                point = torch.nn.functional.one_hot(default, probs.shape[1]).double()
                real = concerned & (probs.sum(dim=1) > 0)
                total = probs.sum(dim=1, keepdim=True)
                self.open = torch.where(real[:, None], probs / total, point)[:branches]
            return default
        return torch.cat([self.scripts[:, index], default[branches:]])

    def _check_key(self, key: Key, concerned: Tensor) -> None:
        node = torch.as_tensor(key.node).expand_as(key.position)
        code = (int(key.stream) << 56) + (key.position << 36) + (node << 16) + key.draw
        for before, mattered, _ in self._keys:
            if (twice := (before == code) & concerned & mattered).any():
                row = int(twice.nonzero()[0])
                raise PluginError(
                    f"one draw key is used twice in a trajectory: stream {key.stream.name}, "
                    f"position {int(key.position[row])}, node {int(node[row])}, draw {key.draw}. "
                    "Equal keys give equal numbers: the two draws are not independent"
                )
        self._keys.append((code, concerned, key))


def outcomes(run: Callable[[EnumeratedRandomness, int], T], limit: int = LIMIT) -> tuple[T, Tensor]:
    """Call ``run(randomness, branches)`` until every draw of every branch is decided.

    Args:
        run: runs the branches as the first rows of a batch, deterministic but for ``randomness``.
        limit: the most branches.

    Returns:
        What the last call returned, and the probability ``[R]`` float64 of each branch.

    Raises:
        EnumerationError: more than ``limit`` branches.
    """
    scripts, weights = torch.zeros(1, 0, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
    while True:
        randomness = EnumeratedRandomness(scripts)
        result = run(randomness, len(scripts))
        if randomness.open is None:
            return result, weights
        rows, tokens = randomness.open.nonzero(as_tuple=True)
        if len(rows) > limit:
            raise EnumerationError(
                f"more than {limit} outcomes after {scripts.shape[1]} draws: give the strategy "
                "smaller options (fewer levels, fewer sampled drafts, fewer children)"
            )
        weights = weights[rows] * randomness.open[rows, tokens]
        scripts = torch.cat([scripts[rows], tokens[:, None]], dim=1)
