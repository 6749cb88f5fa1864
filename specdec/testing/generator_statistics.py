"""Statistical checks of the generator that an engine draws from, at fixed seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from specdec.decoding.randomness import Key, Randomness, Stream
from specdec.distribution import Distribution
from specdec.request.seeds import row_seeds
from specdec.testing.cases import Case
from specdec.testing.subject import Subject

_PROBS = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.01], dtype=torch.float64)
_DRAWS = 1 << 14
_TAIL_DRAWS, _TAIL = 1 << 21, 4e-6
# Standard deviations; the seeds are fixed, so that a generator passes always or never.
_ALLOWED = 4.5


def generator_has_its_distributions(subject: Subject, case: Case) -> float:
    """The engine's generator has the distributions asked for along every part of its keys, tails
    too.

    Returns:
        The largest deviation, in standard deviations.
    """
    largest = 0.0
    for along in ("positions", "rows", "nodes"):
        randomness, key = _batch(subject, along, _DRAWS)
        distribution = Distribution.of(_PROBS.log().expand(_DRAWS, -1))
        tokens, joint = (
            randomness.categorical(distribution, key),
            torch.outer(_PROBS, _PROBS).flatten(),
        )
        largest = max(largest, _judge(tokens, _PROBS, f"along {along}"))
        pairs = {"neighbours": tokens[::2] * len(_PROBS) + tokens[1::2]}
        others = {stream.name: replace(key, stream=stream) for stream in Stream}
        for what, other in {**others, key.stream.name: replace(key, draw=1)}.items():
            again = randomness.categorical(distribution, other)
            pairs[f"draws and {what} draws"] = tokens * len(_PROBS) + again
        for what, pair in pairs.items():
            largest = max(largest, _judge(pair, joint, f"of {what} along {along}"))
    randomness, key = _batch(subject, "positions", _TAIL_DRAWS)
    heads = int(randomness.bernoulli(torch.full((_TAIL_DRAWS,), _TAIL).double(), key).sum())
    expected = _TAIL_DRAWS * _TAIL
    if not expected / 4 <= heads <= 3 * expected:
        raise AssertionError(
            f"an event of probability {_TAIL:g} came {heads} times in {_TAIL_DRAWS} draws, about "
            f"{expected:.0f} were due: the generator's numbers are too coarse near 0"
        )
    return largest


def _batch(subject: Subject, along: str, draws: int) -> tuple[Randomness, Key]:
    """A batch of draws that differ in one part of their keys alone."""
    order, fixed = torch.arange(draws), torch.full((draws,), 3)
    seeds = torch.tensor(row_seeds(11, draws)) if along == "rows" else torch.full((draws,), 1234)
    randomness = subject.any_engine().make_randomness(seeds)
    position = order if along == "positions" else fixed
    return randomness, Key(Stream.ACCEPT, position, order if along == "nodes" else fixed)


def _judge(tokens: Tensor, probs: Tensor, what: str) -> float:
    """The chi-square statistic's distance from its mean in standard deviations."""
    expected = probs * len(tokens)
    counts = tokens.bincount(minlength=len(probs))
    freedom = len(probs) - 1
    statistic = float(((counts - expected).square() / expected).sum())
    distance = abs(statistic - freedom) / math.sqrt(2 * freedom)
    if distance > _ALLOWED:
        raise AssertionError(
            f"the distribution {what} is off by {distance:.1f} standard deviations"
        )
    return distance
