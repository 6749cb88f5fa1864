"""The tables of a report, as text for any output."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.bench.benchmark_report import PLAIN, Range, Ratio, Report, Result
from specdec.decoding.clock import PHASES

SHOWN_DEPTHS = 8
SHOWN_RANKS = 4  # of siblings, by confidence; the further ones are hardly ever accepted


@dataclass(frozen=True)
class ReportTable:
    """One table.

    Attributes:
        columns: their names.
        rows: one for each contender.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def report_tables(report: Report) -> list[ReportTable]:
    """Speed and identity, work, where the time goes, intervals, acceptance by depth, and the prompt
    sets if there are several."""
    found = [
        ReportTable(_SPEED, tuple(_speed(result) for result in report.results)),
        ReportTable(_WORK, tuple(_work(result) for result in report.results)),
        ReportTable(_TIME, tuple(_time(result) for result in report.results)),
    ]
    if any(result.speedup.interval for result in report.results):
        found.append(ReportTable(_INTERVAL, tuple(_interval(r) for r in report.results)))
    if alpha := _acceptance(report):
        found.append(alpha)
    if report.by_set:
        names = list(dict.fromkeys(result.set for result in report.by_set))
        rows = []
        for result in report.results:
            own = {r.set: r for r in report.by_set if r.strategy == result.strategy}
            cells = (f"{number_text(own[n].tau)} / {ratio_text(own[n].speedup)}" for n in names)
            rows.append((result.strategy, *cells))
        found.append(ReportTable(("tau / speedup", *names), tuple(rows)))
    return found


def position_table(report: Report) -> ReportTable | None:
    """Acceptance rate, and in brackets n, of the draft tokens of each depth and rank whose parent
    was accepted; None without draft tokens. It is wide, so it is for pages."""
    known = [(r.strategy, r.outcomes.positions) for r in report.results if r.outcomes]
    if not known:
        return None
    deepest = min(SHOWN_DEPTHS, max(len(positions.tried) for _, positions in known))
    rows = []
    for strategy, positions in known:
        for rank in range(1, SHOWN_RANKS + 1):
            counts = [positions.at(depth, rank) for depth in range(1, deepest + 1)]
            if any(tried for tried, _ in counts):
                cells = (
                    f"{taken / tried:.2f} ({tried})" if tried else "-" for tried, taken in counts
                )
                rows.append((strategy, str(rank), *cells))
    depths = (f"depth {depth}" for depth in range(1, deepest + 1))
    return ReportTable(("acceptance by position", "rank", *depths), tuple(rows))


def _acceptance(report: Report) -> ReportTable | None:
    """Acceptance by depth, of those that draft."""
    drafting = [result for result in report.results if result.alpha]
    if not drafting:
        return None
    depth = min(SHOWN_DEPTHS, max(len(result.alpha) for result in drafting))
    rows = []
    for result in drafting:
        rates = [f"{rate:.2f}" for rate in result.alpha[:depth]]
        rows.append((result.strategy, *rates, *["-"] * (depth - len(rates))))
    return ReportTable(("acceptance by depth", *map(str, range(1, depth + 1))), tuple(rows))


_SPEED = (
    "strategy", "tau", "tokens/s", "speedup", "over prompts", "over runs", "beside HF", "identical",
)  # fmt: skip
_WORK = ("strategy", "target forwards", "draft forwards", "ms a step", "peak memory, MiB")
_TIME = ("share of time", *PHASES, "other")
_INTERVAL = ("95 % interval", "tau", "speedup", "beside HF")


def _speed(result: Result) -> tuple[str, ...]:
    return (
        result.strategy,
        number_text(result.tau),
        f"{result.tokens_per_second:.1f}",
        ratio_text(result.speedup),
        range_text(result.speedup.over_prompts),
        range_text(result.speedup.over_repetitions),
        ratio_text(result.beside_transformers),
        identity_text(result),
    )


def _work(result: Result) -> tuple[str, ...]:
    per_step = result.milliseconds_per_step
    return (
        result.strategy,
        _count(result.target_forwards),
        _count(result.draft_forwards),
        f"{per_step['total']:.2f}" if per_step else "-",
        f"{result.peak_memory / 2**20:.0f}" if result.peak_memory else "-",
    )


def _time(result: Result) -> tuple[str, ...]:
    share = result.share
    return (result.strategy, *(f"{share[p]:.1%}" if p in share else "-" for p in _TIME[1:]))


def _interval(result: Result) -> tuple[str, ...]:
    beside = result.beside_transformers
    return (
        result.strategy,
        range_text(result.tau_interval),
        range_text(result.speedup.interval),
        range_text(beside.interval if beside else None),
    )


def identity_text(result: Result) -> str:
    """Of identity, in a word or two."""
    if result.strategy == PLAIN:
        return "baseline"
    if result.identical is None:
        return "n/a"
    return "yes" if result.identical else f"NO, {result.identical_prompts}/{result.prompts}"


def ratio_text(ratio: Ratio | None) -> str:
    """A ratio's median."""
    return "-" if ratio is None else f"{ratio.median:.2f}x"


def range_text(range_: Range | None) -> str:
    """The ends of a spread."""
    return "-" if range_ is None else f"{range_[0]:.2f}-{range_[1]:.2f}"


def number_text(value: float | None) -> str:
    """Two places."""
    return "-" if value is None else f"{value:.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
