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
from specdec.randomness import Key, Randomness
from specdec.testing.guards import UnkeyedRandomnessError

T = TypeVar("T")
LIMIT = 1 << 14


class EnumerationError(AssertionError):
    """More outcomes than can be enumerated: the case is too large, nothing is known of the law."""


class EnumeratedRandomness(Randomness):
    """Row b replays the outcomes ``scripts[b]``; the first draw past them is the open one.

    The other rows are neighbours: they take the first outcome that they can have, always.

    Args:
        scripts: ``[R, n]`` int64, the outcomes of the first n draws of each branch.

    Attributes:
        open: ``[R, outcomes]`` float64, the probabilities of the open draw; None if the scripts
            reach to the end.
        replayed: ``[R, outcomes]`` float64, the probabilities of the last draw of the scripts;
            None if it was not reached.
        coupled: whether drafts may look at the noise of draws that come: the acceptor is to draw as
            plain decoding would, whatever was drafted.
        before: how many neighbours stand before the branches in the batch.
        active: ``[B]`` bool, rows that are not finished; None for all. For other rows a draw does
            not matter and is no draw: the first outcome is taken.
    """

    def __init__(self, scripts: Tensor) -> None:
        self.scripts = scripts
        self.open: Tensor | None = None
        self.replayed: Tensor | None = None
        self.coupled = False
        self.before = 0
        self.active: Tensor | None = None
        self._draws = 0
        self._keys: list[tuple[Tensor, Tensor, Key]] = []
        self._seen: list[Tensor] = []

    @property
    def branches(self) -> slice:
        """The rows of the batch that are branches."""
        return slice(self.before, self.before + len(self.scripts))

    def categorical(self, law: Law, key: Key) -> Tensor:
        return self._next(law.probs.double().nan_to_num(nan=0.0).clamp(min=0), key)

    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        p = probability.double().nan_to_num(nan=0.0).clamp(0, 1)
        return self._next(torch.stack([1 - p, p], dim=1), key).bool()

    def exponential(self, key: Key, tokens: Tensor) -> None:
        """There is no noise; that a draft wanted to look at it is kept in mind."""
        self._seen.append(_code(key))

    def _next(self, probs: Tensor, key: Key) -> Tensor:
        decided, own = self.scripts.shape[1], self.branches
        concerned = (probs > 0).sum(dim=1) > 1  # a draw with one outcome takes no randomness
        if self.active is not None:
            concerned = concerned & self.active
        self._check_key(key, concerned)
        default = (probs > 0).double().argmax(dim=1)
        index, self._draws = self._draws, self._draws + 1
        if index in (decided - 1, decided):
            point = torch.nn.functional.one_hot(default, probs.shape[1]).double()
            total = probs.sum(dim=1, keepdim=True)
            law = torch.where(concerned[:, None], probs / total, point)[own]
            self.replayed, self.open = (law, None) if index < decided else (self.replayed, law)
        if index >= decided:
            return default
        return torch.cat([default[: own.start], self.scripts[:, index], default[own.stop :]])

    def _check_key(self, key: Key, concerned: Tensor) -> None:
        node = torch.as_tensor(key.node).expand_as(key.position)
        code = _code(key)
        if not self.coupled and any(((seen == code) & concerned).any() for seen in self._seen):
            raise PluginError(
                f"drafts have looked at the noise of a draw that decides about them: stream "
                f"{key.stream.name}, draw {key.draw}. Only an acceptor that is seed_exact may draw "
                "there"
            )
        for before, mattered, _ in self._keys:
            if (twice := (before == code) & concerned & mattered).any():
                row = int(twice.nonzero()[0])
                raise PluginError(
                    f"one draw key is used twice in a trajectory: stream {key.stream.name}, "
                    f"position {int(key.position[row])}, node {int(node[row])}, draw {key.draw}. "
                    "Equal keys give equal numbers: the two draws are not independent"
                )
        self._keys.append((code, concerned, key))


def _code(key: Key) -> Tensor:
    """A number of its own for every key of a row: ``[B]`` int64."""
    node = torch.as_tensor(key.node).expand_as(key.position)
    return (int(key.stream) << 56) + (key.position << 36) + (node << 16) + key.draw


def outcomes(run: Callable[[EnumeratedRandomness, int], T], limit: int = LIMIT) -> tuple[T, Tensor]:
    """Call ``run(randomness, branches)`` until every draw of every branch is decided.

    Args:
        run: runs the branches as rows of one batch, the first unless it sets ``before``;
            deterministic but for ``randomness``.
        limit: the most branches.

    Returns:
        What the last call returned, and the probability ``[R]`` float64 of each branch.

    Raises:
        EnumerationError: more than ``limit`` branches.
        UnkeyedRandomnessError: on the same outcomes a draw had another law than before.
    """
    opened: Tensor | None = None
    scripts, weights = torch.zeros(1, 0, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
    while True:
        randomness = EnumeratedRandomness(scripts)
        result = run(randomness, len(scripts))
        if opened is not None and not _same(randomness.replayed, opened):
            raise UnkeyedRandomnessError(
                f"draw {scripts.shape[1]} has another law when the same outcomes are replayed: "
                "unkeyed randomness (a generator of a part's own), or state kept between runs"
            )
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
        opened = randomness.open[rows]


def _same(law: Tensor | None, before: Tensor) -> bool:
    """Whether a replayed draw has the law it had, to rounding."""
    if law is None or law.shape != before.shape:
        return False
    return torch.allclose(law, before, rtol=0.0, atol=1e-9)
