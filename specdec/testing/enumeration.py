"""Enumerated randomness: every outcome of every draw, with its probability.

Branches are rows of a batch. A row replays its script and takes the likeliest outcome of any other
draw; the next batch has a row besides for each outcome that none has taken yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from specdec.decoding.randomness import Key, Randomness
from specdec.distribution import Distribution
from specdec.errors import PluginError
from specdec.testing.stray_randomness import UnkeyedRandomnessError

T = TypeVar("T")
LIMIT = 1 << 14
# Draws are exact to rounding; a distribution that has changed has changed by more.
_SAME = 1e-9
# What is this unlikely is left out: below it, whether an outcome is possible at all is rounding.
_NEVER = 1e-14
# More batches than any enumeration needs that comes to an end.
_BATCHES = 500
_WHY = (
    "when the same outcomes are replayed: unkeyed randomness (a generator of a part's own), or "
    "state kept between runs"
)


class EnumerationError(AssertionError):
    """More outcomes than can be enumerated: the case is too large, nothing is known of the
    distribution."""


class Draw(NamedTuple):
    """One draw of a branch.

    Attributes:
        key: a number of its own for the draw's key.
        outcome: the one taken.
        chances: the probability of each outcome that is possible.
    """

    key: int
    outcome: int
    chances: dict[int, float]


# By the draw's key, what a branch takes there.
Script = dict[int, int]


class EnumeratedRandomness(Randomness):
    """Branch r replays ``scripts[r]``, and takes the likeliest outcome of any other draw.

    The other rows are neighbours: they take the first outcome that they can have, always.

    Args:
        scripts: one for each branch.

    Attributes:
        made: for each branch its draws, in order.
        coupled: whether drafts may look at the noise of draws that come: the acceptor is to draw as
            plain decoding would, whatever was drafted.
        before: how many neighbours stand before the branches in the batch.
        active: ``[B]`` bool, rows that are not finished; None for all. For other rows a draw does
            not matter and is no draw: the first outcome is taken.
    """

    def __init__(self, scripts: list[Script]) -> None:
        self.scripts = scripts
        self.made: list[list[Draw]] = [[] for _ in scripts]
        self.coupled = False
        self.before = 0
        self.active: Tensor | None = None
        self._drawn: dict[int, set[int]] = {}
        self._looked: dict[int, set[int]] = {}

    @property
    def branches(self) -> slice:
        """The rows of the batch that are branches."""
        return slice(self.before, self.before + len(self.scripts))

    def categorical(self, distribution: Distribution, key: Key) -> Tensor:
        return self._next(distribution.probs.double().nan_to_num(nan=0.0).clamp(min=0), key)

    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        p = probability.double().nan_to_num(nan=0.0).clamp(0, 1)
        return self._next(torch.stack([1 - p, p], dim=1), key).bool()

    def exponential(self, key: Key, tokens: Tensor) -> None:
        """There is no noise; that a draft wanted to look at it is kept in mind."""
        for row, code in enumerate(_code(key).tolist()):
            codes = code if isinstance(code, list) else [code]
            self._looked.setdefault(row, set()).update(codes)

    def _next(self, probs: Tensor, key: Key) -> Tensor:
        possible = probs > _NEVER * probs.sum(dim=1, keepdim=True)
        concerned = possible.sum(dim=1) > 1  # a draw with one outcome takes no randomness
        if self.active is not None:
            concerned = concerned & self.active
        taken = possible.double().argmax(dim=1)
        rows = concerned.nonzero().flatten()
        if not len(rows):
            return taken
        codes, own = _code(key)[rows].tolist(), self.branches
        chances: dict[int, dict[int, float]] = {row: {} for row in rows.tolist()}
        probs = probs * possible
        distribution = probs[rows] / probs[rows].sum(dim=1, keepdim=True)
        where = distribution.nonzero()
        places = zip(rows[where[:, 0]].tolist(), where[:, 1].tolist(), strict=True)
        for (row, outcome), p in zip(places, distribution[where.unbind(1)].tolist(), strict=True):
            chances[row][outcome] = p
        found = taken.tolist()
        for row, code in zip(chances, codes, strict=True):
            self._check_key(row, code, key)
            if own.start <= row < own.stop:
                found[row] = self._outcome(row - own.start, code, chances[row])
        return torch.tensor(found)

    def _outcome(self, branch: int, code: int, chances: dict[int, float]) -> int:
        outcome = self.scripts[branch].get(code, -1)
        if outcome not in chances:
            outcome = max(chances, key=lambda one: chances[one])
        self.made[branch].append(Draw(code, outcome, chances))
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
    """Call ``run(randomness, branches)`` until every outcome of every draw has its branch.

    Every call has all branches that are known so far. Which draws a branch makes, and by what keys,
    may depend on the others in its batch, as how deep the batch is drafted does; what it gives at a
    draw may not.

    Args:
        run: runs the branches as rows of one batch, the first unless it sets ``before``;
            deterministic but for ``randomness``.
        limit: the most branches.

    Returns:
        What the last call returned, and the probability ``[R]`` float64 of each branch.

    Raises:
        EnumerationError: more than ``limit`` branches.
        UnkeyedRandomnessError: on the same outcomes a draw had another distribution than before.
    """
    scripts, distributions = [Script()], _Distributions()
    for batch in range(_BATCHES):
        randomness = EnumeratedRandomness(scripts)
        result = run(randomness, len(scripts))
        if batch == 0:
            first = randomness.made[0]
        distributions.check(randomness.made)
        distinct, missing = _explored(randomness.made)
        if not missing and len(distinct) == len(scripts):
            if batch:
                again = EnumeratedRandomness([Script()])
                run(again, 1)
                _same_draws(first, again.made[0])
            return result, _weights(randomness.made)
        scripts = distinct + missing
        _within(len(scripts), limit)
    raise UnkeyedRandomnessError(
        f"draws are not the same when outcomes are replayed, {_BATCHES} times over: unkeyed "
        "randomness (a generator of a part's own), or state kept between runs"
    )


def outcomes_apart(
    run: Callable[[EnumeratedRandomness], T], limit: int = LIMIT
) -> tuple[list[T], Tensor]:
    """As :func:`outcomes`, with one branch in a call, for parts whose rows influence each other.

    Returns:
        What each branch returned, and its probability ``[R]`` float64.
    """
    found: list[T] = []
    done: list[list[Draw]] = []
    distributions, waiting = _Distributions(), [Script()]
    while waiting:
        script = waiting.pop()
        randomness = EnumeratedRandomness([script])
        found.append(run(randomness))
        distributions.check(randomness.made)
        (made,) = randomness.made
        done.append(made)
        if len(script) > len(made) or any(draw.key not in script for draw in made[: len(script)]):
            raise UnkeyedRandomnessError(f"draw {len(script)} is not made again {_WHY}")
        taken = dict(script)
        for draw in made[len(script) :]:
            waiting += [{**taken, draw.key: one} for one in draw.chances if one != draw.outcome]
            taken[draw.key] = draw.outcome
        _within(len(done) + len(waiting), limit)
    return found, _weights(done)


class _Distributions:
    """The distribution of every draw after the same outcomes of the same draws."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], dict[int, float]] = {}

    def check(self, made: list[list[Draw]]) -> None:
        """Require that no draw has another distribution than the last time.

        Raises:
            UnkeyedRandomnessError: one has.
        """
        for draws in made:
            before = 0
            for place, (key, outcome, chances) in enumerate(draws, start=1):
                known = self._known.setdefault((before, key), chances)
                if known is not chances and not _same(known, chances):
                    raise UnkeyedRandomnessError(f"draw {place} has another distribution {_WHY}")
                before = hash((before, key, outcome))


def _same(distribution: dict[int, float], other: dict[int, float]) -> bool:
    either = distribution.keys() | other.keys()
    return all(abs(distribution.get(one, 0.0) - other.get(one, 0.0)) <= _SAME for one in either)


def _same_draws(before: list[Draw], after: list[Draw]) -> None:
    """Require the same draws of a branch that was run again alone."""
    _Distributions().check([before, after])
    if [draw.key for draw in before] != [draw.key for draw in after]:
        raise UnkeyedRandomnessError(f"draws are not made again {_WHY}")


def _explored(made: list[list[Draw]]) -> tuple[list[Script], list[Script]]:
    """The different branches that there are, and those that are missing."""
    distinct: dict[tuple[tuple[int, int], ...], Script] = {}
    taken: dict[int, set[int]] = {}
    at: dict[int, tuple[list[Draw], int]] = {}
    for draws in made:
        before = 0
        for place, draw in enumerate(draws):
            node = hash((before, draw.key))
            taken.setdefault(node, set()).add(draw.outcome)
            at.setdefault(node, (draws, place))
            before = hash((before, draw.key, draw.outcome))
        path = tuple((draw.key, draw.outcome) for draw in draws)
        distinct.setdefault(path, dict(path))
    missing = []
    for node, (draws, place) in at.items():
        above = {draw.key: draw.outcome for draw in draws[:place]}
        key, _, chances = draws[place]
        missing += [{**above, key: one} for one in chances if one not in taken[node]]
    return list(distinct.values()), missing


def _weights(made: list[list[Draw]]) -> Tensor:
    weights = [math.prod(draw.chances[draw.outcome] for draw in draws) for draws in made]
    return torch.tensor(weights, dtype=torch.float64)


def _within(branches: int, limit: int) -> None:
    if branches > limit:
        raise EnumerationError(
            f"more than {limit} outcomes: give the strategy smaller options (fewer levels, fewer "
            "sampled drafts, fewer children)"
        )
