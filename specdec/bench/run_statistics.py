"""Medians, spreads and ratios of single runs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specdec.bench.benchmark_report import Mean, Range, Ratio
from specdec.bench.bootstrap import Statistic, mean_interval
from specdec.bench.draft_outcomes import DraftOutcomes
from specdec.decoding.clock import PHASES
from specdec.decoding.metrics import Stats, added_up


@dataclass(frozen=True)
class Run:
    """One contender on one batch of prompts, once.

    Attributes:
        repetition, batch: which.
        seconds: wall-clock time of the whole call.
        new_tokens: rows and turns added up.
        stats: rows added up, of each turn; empty from a peer that does not count.
        steps: of the batch, turns added up; None from such a peer.
        peak_memory: in bytes.
        outcomes: of the draft tokens, turns added up; None without any, and from such a peer.
    """

    repetition: int
    batch: int
    seconds: float
    new_tokens: int
    stats: tuple[Stats, ...]
    steps: int | None
    peak_memory: int
    outcomes: DraftOutcomes | None = None

    @property
    def round(self) -> tuple[int, int]:
        """Repetition and batch."""
        return self.repetition, self.batch

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of wall-clock time."""
        return self.new_tokens / self.seconds


def ratio(ours: Sequence[Run], base: Sequence[Run]) -> Ratio:
    """How fast ``ours`` are beside ``base``: runs of the same batches in the same repetitions."""
    table = _ratios(ours, base)
    repetitions = np.median(table, axis=1).tolist()
    return Ratio(
        statistics.median(repetitions),
        _quartiles(np.median(table, axis=0).tolist()),
        _extent(repetitions),
        mean_interval([ratio_statistic(ours, base)]),
    )


def ratio_statistic(ours: Sequence[Run], base: Sequence[Run]) -> Statistic:
    """The median of :func:`ratio`, over batches."""
    table = _ratios(ours, base)

    def median(drawn: Any) -> Any:
        return np.median(np.median(table[:, drawn], axis=2), axis=0)

    return Statistic(table.shape[1], median)


def _ratios(ours: Sequence[Run], base: Sequence[Run]) -> Any:
    """By repetition and batch, ``[repetitions, batches]``."""
    known = {run.round: run.tokens_per_second for run in base}
    by_repetition = defaultdict(list)
    for run in sorted(ours, key=lambda run: run.round):
        by_repetition[run.repetition].append(run.tokens_per_second / known[run.round])
    return np.array(list(by_repetition.values()))


def tokens_per_second(runs: Sequence[Run]) -> tuple[float, Range | None]:
    """The median over repetitions of tokens by seconds, and the extent."""
    by_repetition = defaultdict(list)
    for run in runs:
        by_repetition[run.repetition].append(run)
    rates = [
        sum(run.new_tokens for run in own) / sum(run.seconds for run in own)
        for own in by_repetition.values()
    ]
    return statistics.median(rates), _extent(rates)


def seconds_by_phase(runs: Sequence[Run]) -> dict[str, float]:
    """Of the mean repetition, with ``"other"`` and ``"total"``; without phases the total alone."""
    repetitions = len({run.repetition for run in runs})
    total = sum(run.seconds for run in runs) / repetitions
    known = [one for run in runs for one in run.stats if one.seconds]
    if not known:
        return {"total": total}
    phases = {p: sum(s.seconds.get(p, 0.0) for s in known) / repetitions for p in PHASES}
    return {**phases, "other": max(0.0, total - sum(phases.values())), "total": total}


@dataclass(frozen=True)
class Counts:
    """What one repetition came to; see ``Result``."""

    new_tokens: int
    steps: int | None
    target_forwards: int | None
    draft_forwards: int | None
    alpha: tuple[float, ...] = ()
    tried: tuple[int, ...] = ()

    @property
    def tau(self) -> float | None:
        """Tokens committed per target forward."""
        return self.new_tokens / self.target_forwards if self.target_forwards else None


def counts(runs: Sequence[Run]) -> Counts:
    """Of the first repetition: the others decode the same tokens."""
    first = _first(runs)
    stats = [one for run in first for one in run.stats]
    drafted = [one.draft_forwards for one in stats if one.draft_forwards is not None]
    steps = [run.steps for run in first if run.steps is not None]
    together = added_up(stats) if stats else None
    return Counts(
        new_tokens=sum(run.new_tokens for run in first),
        steps=sum(steps) if steps else None,
        target_forwards=together.target_forwards if together else None,
        draft_forwards=sum(drafted) if drafted else None,
        alpha=together.alpha if together else (),
        tried=together.tried if together else (),
    )


def tau_statistic(runs: Sequence[Run]) -> Statistic | None:
    """tau, over the batches of the first repetition; None from a peer that does not count."""
    first = _first(runs)
    tokens = np.array([run.new_tokens for run in first])
    forwards = np.array([sum(one.target_forwards for one in run.stats) for run in first])
    if not forwards.all():
        return None

    def tau(drawn: Any) -> Any:
        return tokens[drawn].sum(axis=1) / forwards[drawn].sum(axis=1)

    return Statistic(len(first), tau)


def mean_tau(sets: Sequence[Sequence[Run]]) -> Mean | None:
    """That of tau over prompt sets, whose runs are given; None from a peer that does not count."""
    known = [tau for runs in sets if (tau := tau_statistic(runs))]
    return _mean(known) if len(known) == len(sets) else None


def mean_ratio(ours: Sequence[Sequence[Run]], base: Sequence[Sequence[Run]]) -> Mean:
    """That of the medians of :func:`ratio` over prompt sets, whose runs are given."""
    return _mean([ratio_statistic(*pair) for pair in zip(ours, base, strict=True)])


def _mean(statistics: Sequence[Statistic]) -> Mean:
    return Mean(float(np.mean([each.value for each in statistics])), mean_interval(statistics))


def outcomes(runs: Sequence[Run]) -> DraftOutcomes | None:
    """What became of the draft tokens of the first repetition."""
    return DraftOutcomes.summed(run.outcomes for run in _first(runs))


def _first(runs: Sequence[Run]) -> list[Run]:
    """Those of the first repetition."""
    return [run for run in runs if run.repetition == runs[0].repetition]


def _quartiles(values: Sequence[float]) -> Range | None:
    if len(values) < 2:
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _extent(values: Sequence[float]) -> Range | None:
    return (min(values), max(values)) if len(values) > 1 else None
