"""The tables of a report, as text for any output."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.bench.benchmark_report import PLAIN, Range, Ratio, Report, Result
from specdec.bench.setting_names import written
from specdec.decoding.clock import PHASES


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
            cells = (f"{number(own[n].tau)} / {times(own[n].speedup)}" for n in names)
            rows.append((result.strategy, *cells))
        found.append(ReportTable(("tau / speedup", *names), tuple(rows)))
    return found


def _acceptance(report: Report) -> ReportTable | None:
    """Acceptance by depth, of those that draft."""
    drafting = [result for result in report.results if result.alpha]
    if not drafting:
        return None
    depth = min(_SHOWN_DEPTHS, max(len(result.alpha) for result in drafting))
    rows = []
    for result in drafting:
        rates = [f"{rate:.2f}" for rate in result.alpha[:depth]]
        rows.append((result.strategy, *rates, *["-"] * (depth - len(rates))))
    return ReportTable(("acceptance by depth", *map(str, range(1, depth + 1))), tuple(rows))


def notes(report: Report) -> list[str]:
    """What was run and how to read the tables, a sentence or two each."""
    settings, prompts = report.settings, report.prompts
    shortest, longest = prompts["tokens"]["min"], prompts["tokens"]["max"]
    lengths = f"{shortest} to {longest}" if shortest < longest else str(longest)
    turns = prompts["turns"]["max"]
    answered, each = (f", up to {turns} turns", " each") if turns > 1 else ("", "")
    fields = "".join(f", {name}={value}" for name, value in settings["fields"].items())
    done, count = report.repetitions, sum(prompts["sets"].values())
    lines = [
        f"{report.model}, {report.dtype} on {report.device}{_networks(report)}; "
        f"{report.machine['processor']}, "
        f"{report.machine['threads']} of {report.machine['cores']} cores.",
        f"{count} {'prompt' if count == 1 else 'prompts'} of {lengths} tokens{answered}, "
        f"at most {settings['max_new_tokens']} new tokens{each}, batch {settings['batch_size']}, "
        f"temperature {written(settings['temperature'])}{fields}; {done} "
        f"{'repetition' if done == 1 else 'repetitions'}, interleaved.",
        "speedup: tokens/s beside plain on the same prompts in the same repetition; median over "
        "prompts, then over repetitions. Over prompts: its quartiles. Over runs: the least and the "
        "largest of the repetitions. The whole call counts, set-up and prefill included.",
        "95 % interval: of tau and of the median ratio, by bootstrap over prompts.",
        *_beside_hf(report),
        f"noise: plain beside itself {times(report.noise)}{_within(report.noise)}.",
        f"memory: {report.memory}.",
    ]
    if report.inflated:
        lines.append(
            f"Synthetic: inflated from {report.inflated}; the cost of the large model, the text "
            "of the small one."
        )
    if report.interrupted:
        lines.append("Interrupted: these are the runs that were finished.")
    if report.failure:
        lines.append(f"It ended there: {report.failure}.")
    for result in report.results:
        if result.identical is None:
            lines.append(f"{result.strategy}: {result.identical_reason}.")
        elif result.differences:
            lines.append(f"{result.strategy}: {result.identical_reason}: {_where(result)}.")
    return lines


_SPEED = (
    "strategy", "tau", "tokens/s", "speedup", "over prompts", "over runs", "beside HF", "identical",
)  # fmt: skip
_WORK = ("strategy", "target forwards", "draft forwards", "ms a step", "peak memory, MiB")
_TIME = ("share of time", *PHASES, "other")
_INTERVAL = ("95 % interval", "tau", "speedup", "beside HF")
_SHOWN_DIFFERENCES = 5
_SHOWN_DEPTHS = 8


def _speed(result: Result) -> tuple[str, ...]:
    return (
        result.strategy,
        number(result.tau),
        f"{result.tokens_per_second:.1f}",
        times(result.speedup),
        extent(result.speedup.over_prompts),
        extent(result.speedup.over_repetitions),
        times(result.beside_transformers),
        verdict(result),
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
        extent(result.tau_interval),
        extent(result.speedup.interval),
        extent(beside.interval if beside else None),
    )


def verdict(result: Result) -> str:
    """Of identity, in a word or two."""
    if result.strategy == PLAIN:
        return "baseline"
    if result.identical is None:
        return "n/a"
    return "yes" if result.identical else f"NO, {result.identical_prompts}/{result.prompts}"


def times(ratio: Ratio | None) -> str:
    """A ratio's median."""
    return "-" if ratio is None else f"{ratio.median:.2f}x"


def extent(range_: Range | None) -> str:
    """The ends of a spread."""
    return "-" if range_ is None else f"{range_[0]:.2f}-{range_[1]:.2f}"


def number(value: float | None) -> str:
    """Two places."""
    return "-" if value is None else f"{value:.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _beside_hf(report: Report) -> list[str]:
    if not any(result.beside_transformers for result in report.results):
        return []
    return ["beside HF: the same beside transformers' own generate on the same model."]


def _within(ratio: Ratio) -> str:
    spread = ratio.over_repetitions or ratio.over_prompts
    return f" ({extent(spread)})" if spread else ""


def _where(result: Result) -> str:
    shown = [
        f"{d.set} {d.prompt}{f', turn {d.turn + 1},' if d.turn else ''} at new token {d.position}"
        + ("" if d.logit_gap is None else f", the two best logits {d.logit_gap:.2g} apart")
        for d in result.differences[:_SHOWN_DIFFERENCES]
    ]
    more = len(result.differences) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _networks(report: Report) -> str:
    """What was done to specdec's networks, if anything."""
    what = {
        "weights packed": report.pack,
        "networks compiled": report.compile,
    }
    return "".join(f", {name} (not transformers')" for name, done in what.items() if done)
