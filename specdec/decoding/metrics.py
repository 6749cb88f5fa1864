"""Metrics of a generation: tau, acceptance by depth, seconds by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from specdec.decoding.clock import Clock
from specdec.decoding.step import Step


@dataclass(frozen=True)
class Stats:
    """The measurements of one row (or of a batch, rows added up).

    Attributes:
        new_tokens: tokens committed.
        target_forwards: verifications in which the row took part; the prefill is not counted.
        draft_forwards: times the drafter was asked for a level (of the whole batch); None from
            another decoder that does not count them.
        tau: tokens committed per target forward, bonus included, after stop rules.
        alpha: acceptance rate by depth, from depth 1: accepted / rows that reached the depth and
            had a draft token there.
        tried: those rows, by depth.
        accepted_tokens: draft tokens that were accepted.
        seconds: wall-clock time by phase (of the whole batch), with ``"total"`` and ``"other"``. On
            a GPU what it still computes counts in the phase that waits for it.
        tokens_per_second: of the whole generation, prefill included.
        row_processor_seconds: spent in logits processors that had to run row by row.
        lossless: whether the acceptor keeps the target's distribution.
    """

    new_tokens: int
    target_forwards: int
    draft_forwards: int | None
    tau: float
    alpha: tuple[float, ...] = ()
    accepted_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    tokens_per_second: float = 0.0
    row_processor_seconds: float = 0.0
    lossless: bool = True
    tried: tuple[int, ...] = ()


def added_up(rows: Sequence[Stats]) -> Stats:
    """Of several rows or batches together; what a batch shares is that of the first."""
    first = rows[0]
    if len(rows) == 1:
        return first
    depth = max(len(row.tried) for row in rows)
    tried = [sum(row.tried[d] for row in rows if d < len(row.tried)) for d in range(depth)]
    taken = [
        sum(row.alpha[d] * row.tried[d] for row in rows if d < len(row.tried)) for d in range(depth)
    ]
    tokens, steps = sum(r.new_tokens for r in rows), sum(r.target_forwards for r in rows)
    return replace(
        first,
        new_tokens=tokens,
        target_forwards=steps,
        tau=tokens / steps if steps else 0.0,
        alpha=tuple(a / t for a, t in zip(taken, tried, strict=True)),
        accepted_tokens=sum(row.accepted_tokens for row in rows),
        tokens_per_second=sum(row.tokens_per_second for row in rows),
        tried=tuple(tried),
    )


@dataclass
class _Row:
    tokens: int = 0
    steps: int = 0
    accepted: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    counted: list[tuple[int, int, int]] = field(default_factory=list)

    def count(self, tokens: int, accepted: int, tried: int) -> None:
        self.counted.append((tokens, accepted, tried))
        self.tokens += tokens
        self.steps += 1
        missing = tried - len(self.tried)
        self.tried += [0] * missing
        self.accepted += [0] * missing
        for depth in range(tried):
            self.tried[depth] += 1
            self.accepted[depth] += depth < accepted


class Metrics:
    """Adds up steps.

    Args:
        rows: batch size B.
        clock: the clock of the same generation.
        lossless: whether its acceptor keeps the target's distribution.
    """

    def __init__(self, rows: int, clock: Clock, *, lossless: bool) -> None:
        self.clock, self.lossless = clock, lossless
        self.row_processor_seconds = 0.0
        self._rows = [_Row() for _ in range(rows)]
        self._total = 0.0

    def timed(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The same steps; the time between them, which is the caller's, is left out."""
        while True:
            started = time.perf_counter()
            step = next(steps, None)
            self._total += time.perf_counter() - started
            if step is None:
                return
            yield step

    def observe(self, step: Step) -> None:
        """Count one step."""
        facts = zip(step.request_rows, step.new_tokens, step.accepted, step.tried, strict=True)
        for request_row, tokens, accepted, tried in facts:
            if tokens:
                self._rows[request_row].count(len(tokens), accepted, tried)

    def end(self, row: int, new_tokens: int) -> None:
        """Leave out the tokens of a row beyond the first ``new_tokens``; the steps that gave them
        stay counted."""
        own, self._rows[row] = self._rows[row], _Row()
        for tokens, accepted, tried in own.counted:
            kept = max(0, min(tokens, new_tokens - self._rows[row].tokens))
            self._rows[row].count(kept, min(accepted, kept), min(tried, kept))

    def stats(self, row: int | None = None) -> Stats:
        """Of one row, or of the whole batch."""
        rows = self._rows if row is None else [self._rows[row]]
        depth = max((len(r.tried) for r in rows), default=0)
        tried = [sum(r.tried[d] for r in rows if d < len(r.tried)) for d in range(depth)]
        taken = [sum(r.accepted[d] for r in rows if d < len(r.accepted)) for d in range(depth)]
        tokens, steps = sum(r.tokens for r in rows), sum(r.steps for r in rows)
        seconds = dict(self.clock.seconds, total=self._total)
        seconds["other"] = max(0.0, self._total - sum(self.clock.seconds.values()))
        return Stats(
            new_tokens=tokens,
            target_forwards=steps,
            draft_forwards=self.clock.draft_forwards,
            tau=tokens / steps if steps else 0.0,
            alpha=tuple(a / t for a, t in zip(taken, tried, strict=True)),
            accepted_tokens=sum(taken),
            seconds=seconds,
            tokens_per_second=tokens / self._total if self._total else 0.0,
            row_processor_seconds=self.row_processor_seconds,
            lossless=self.lossless,
            tried=tuple(tried),
        )
