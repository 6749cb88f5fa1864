"""Enumerated randomness: every outcome of every draw, with its probability.

Branches are rows of a batch. A row replays its script and takes the likeliest outcome of every draw
past it; the next wave has a row for each other outcome of those draws besides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from specdec.errors import PluginError
from specdec.law import Law
from specdec.randomness import Key, Randomness
from specdec.testing.guards import UnkeyedRandomnessError

T = TypeVar("T")
LIMIT = 1 << 14
# Draws are exact to rounding; a law that has changed has changed by more.
_SAME = 1e-9


class EnumerationError(AssertionError):
    """More outcomes than can be enumerated: the case is too large, nothing is known of the law."""


@dataclass
class Script:
    """What a branch draws.

    Attributes:
        outcomes: by the draw's key, in the order drawn, the outcome and its probability.
    """

    outcomes: dict[int, tuple[int, float]] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """The probability of the branch."""
        product = 1.0
        for _, probability in self.outcomes.values():
            product *= probability
        return product

    def forked(self, opened: list[_Draw]) -> list[Script]:
        """One script for each outcome of the draws ``opened``, the outcome taken first."""
        found, longer = [], dict(self.outcomes)
        for key, taken, chances in opened:
            others = [(outcome, p) for outcome, p in chances.items() if outcome != taken]
            found += [Script({**longer, key: other}) for other in others]
            longer[key] = (taken, chances[taken])
        return [Script(longer), *found]


# Key, outcome taken, and the probability of each outcome that is possible.
_Draw = tuple[int, int, dict[int, float]]


class EnumeratedRandomness(Randomness):
    """Branch r replays ``scripts[r]``, which says what each draw gives, by its key.

    The other rows are neighbours: they take the first outcome that they can have, always.

    Args:
        scripts: one for each branch.

    Attributes:
        opened: for each branch the draws that its script does not know, in order.
        coupled: whether drafts may look at the noise of draws that come: the acceptor is to draw as
            plain decoding would, whatever was drafted.
        before: how many neighbours stand before the branches in the batch.
        active: ``[B]`` bool, rows that are not finished; None for all. For other rows a draw does
            not matter and is no draw: the first outcome is taken.
    """

    def __init__(self, scripts: list[Script]) -> None:
        self.scripts = scripts
        self.opened: list[list[_Draw]] = [[] for _ in scripts]
        self.coupled = False
        self.before = 0
        self.active: Tensor | None = None
        self._drawn: dict[int, set[int]] = {}
        self._looked: dict[int, set[int]] = {}

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
        for row, code in enumerate(_code(key).tolist()):
            codes = code if isinstance(code, list) else [code]
            self._looked.setdefault(row, set()).update(codes)

    def replayed(self) -> None:
        """Require that every draw of every script was made.

        Raises:
            UnkeyedRandomnessError: one was not.
        """
        for row, script in enumerate(self.scripts, start=self.before):
            drawn = self._drawn.get(row, set())
            for place, code in enumerate(script.outcomes, start=1):
                if code not in drawn:
                    raise UnkeyedRandomnessError(
                        f"draw {place} is not made again when the same outcomes are replayed: "
                        "unkeyed randomness (a generator of a part's own), or state kept between "
                        "runs"
                    )

    def _next(self, probs: Tensor, key: Key) -> Tensor:
        possible = probs > 0
        concerned = possible.sum(dim=1) > 1  # a draw with one outcome takes no randomness
        if self.active is not None:
            concerned = concerned & self.active
        taken = possible.double().argmax(dim=1)
        rows = concerned.nonzero().flatten()
        if not len(rows):
            return taken
        codes, own = _code(key)[rows].tolist(), self.branches
        chances: dict[int, dict[int, float]] = {row: {} for row in rows.tolist()}
        law = probs[rows] / probs[rows].sum(dim=1, keepdim=True)
        where = law.nonzero()
        places = zip(rows[where[:, 0]].tolist(), where[:, 1].tolist(), strict=True)
        for (row, outcome), p in zip(places, law[where.unbind(1)].tolist(), strict=True):
            chances[row][outcome] = p
        found = taken.tolist()
        for row, code in zip(chances, codes, strict=True):
            self._check_key(row, code, key)
            if own.start <= row < own.stop:
                found[row] = self._outcome(row - own.start, code, chances[row])
        return torch.tensor(found)

    def _outcome(self, branch: int, code: int, chances: dict[int, float]) -> int:
        outcomes = self.scripts[branch].outcomes
        if code not in outcomes:
            taken = max(chances, key=lambda outcome: chances[outcome])
            self.opened[branch].append((code, taken, chances))
            return taken
        outcome, due = outcomes[code]
        if abs(chances.get(outcome, 0.0) - due) > _SAME:
            raise UnkeyedRandomnessError(
                f"draw {[*outcomes].index(code) + 1} has another law when the same outcomes are "
                "replayed: unkeyed randomness (a generator of a part's own), or state kept between "
                "runs"
            )
        return outcome

    def _check_key(self, row: int, code: int, key: Key) -> None:
        if not self.coupled and code in self._looked.get(row, ()):
            raise PluginError(
                f"drafts have looked at the noise of a draw that decides about them: stream "
                f"{key.stream.name}, draw {key.draw}. Only an acceptor that is seed_exact may draw "
                "there"
            )
        drawn = self._drawn.setdefault(row, set())
        if code in drawn:
            node = torch.as_tensor(key.node).expand_as(key.position)
            raise PluginError(
                f"one draw key is used twice in a trajectory: stream {key.stream.name}, "
                f"position {int(key.position[row])}, node {int(node[row])}, draw {key.draw}. "
                "Equal keys give equal numbers: the two draws are not independent"
            )
        drawn.add(code)


def _code(key: Key) -> Tensor:
    """A number of its own for every key of a row: ``[B]`` int64."""
    node = torch.as_tensor(key.node).expand_as(key.position)
    return (int(key.stream) << 56) + (key.position << 36) + (node << 16) + key.draw


def outcomes(run: Callable[[EnumeratedRandomness, int], T], limit: int = LIMIT) -> tuple[T, Tensor]:
    """Call ``run(randomness, branches)`` until every draw of every branch is decided.

    Every call has all branches that are known so far: a batch may go deeper than a row in it does,
    but then no call goes less deep than the one before.

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
    scripts = [Script()]
    while True:
        randomness = EnumeratedRandomness(scripts)
        result = run(randomness, len(scripts))
        randomness.replayed()
        if not any(randomness.opened):
            return result, _weights(scripts)
        pairs = zip(scripts, randomness.opened, strict=True)
        scripts = [script for old, opened in pairs for script in old.forked(opened)]
        _within(len(scripts), limit)


def outcomes_apart(
    run: Callable[[EnumeratedRandomness], T], limit: int = LIMIT
) -> tuple[list[T], Tensor]:
    """As :func:`outcomes`, with one branch in a call, for parts whose rows influence each other.

    Returns:
        What each branch returned, and its probability ``[R]`` float64.
    """
    found, done, waiting = [], [], [Script()]
    while waiting:
        randomness = EnumeratedRandomness([waiting.pop()])
        found.append(run(randomness))
        randomness.replayed()
        whole, *others = randomness.scripts[0].forked(randomness.opened[0])
        done.append(whole)
        waiting += others
        _within(len(done) + len(waiting), limit)
    return found, _weights(done)


def _weights(scripts: list[Script]) -> Tensor:
    return torch.tensor([script.weight for script in scripts], dtype=torch.float64)


def _within(branches: int, limit: int) -> None:
    if branches > limit:
        raise EnumerationError(
            f"more than {limit} outcomes: give the strategy smaller options (fewer levels, fewer "
            "sampled drafts, fewer children)"
        )
