"""``run_at``: one benchmark at several temperatures and batch sizes, one report for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.bench.benchmark import on_one_model, run
from specdec.bench.benchmark_report import Report
from specdec.bench.contenders import Contender
from specdec.bench.prompt_sets import Prompt
from specdec.bench.runner import Progress, batches_of, check_progress
from specdec.bench.setting_names import at_settings, temperature_text
from specdec.bench.settings import Settings
from specdec.booleans import check_bools
from specdec.errors import OptionError, SpecdecError
from specdec.request.generation_config import resolve

if TYPE_CHECKING:
    from specdec.engine import Engine


def run_at(
    temperatures: Sequence[float],
    engines: Mapping[str, Engine],
    prompts: Sequence[Prompt],
    settings: Settings,
    *,
    batch_sizes: Sequence[int] | None = None,
    transformers: bool = True,
    peers: Sequence[Contender] = (),
    progress: Progress | None = None,
    log: Path | None = None,
    between: Callable[[Sequence[Report]], object] | None = None,
) -> list[Report]:
    """Measure at one temperature after the other, with one batch size after the other; arguments as
    for :func:`run`.

    Ctrl-C, or an error once there is a report, ends all: the last report says that it was
    interrupted, and by what.

    Args:
        temperatures: in place of the settings' own.
        batch_sizes: in place of the settings' own; all temperatures are measured with one before
            the next. Peers that take fewer rows are left out of the larger ones.
        log: each report has a file of its own, with temperature and batch size in its name
            (:func:`~specdec.bench.setting_names.at_settings`).
        between: called before each further report with those that are finished, which can be
            written then.

    Raises:
        OptionError: temperatures or batch sizes that are none or not allowed, or one twice;
            a peer that takes fewer rows than the smallest; whatever ``run`` refuses.
        KeyboardInterrupt: Ctrl-C before the first round was over.
        ContenderError: a contender failed before then.
    """
    check_bools(transformers=transformers)
    check_progress(progress)
    if between is not None and not callable(between):
        raise OptionError(
            f"between={between!r:.80}: give a function of the finished reports, or None"
        )
    sizes = [settings.batch_size] if batch_sizes is None else batch_sizes
    _check_each_once("temperatures", temperatures)
    _check_each_once("batch sizes", sizes)
    own = [
        replace(settings, temperature=temperature, batch_size=size)
        for size in sizes
        for temperature in temperatures
    ]
    if limited := [peer.label for peer in peers if min(sizes) > (peer.most_rows or min(sizes))]:
        raise OptionError(f"{limited[0]} does not decode {min(sizes)} rows together")
    first = on_one_model(engines)
    for each in own:  # refused before the first runs, not after
        new = each.max_new_tokens
        resolve(first.generation_config, each.decoding(), default_new_tokens=new)
    rounds = [len(batches_of(prompts, s.batch_size)) * s.repetitions + 1 for s in own]
    reports: list[Report] = []
    for place, each in enumerate(own):

        def move(done: int, total: int, what: str, place: int = place) -> None:
            if progress is not None:
                contenders = total // rounds[place]
                before = sum(rounds[:place]) * contenders
                progress(before + done, sum(rounds) * contenders, what)

        try:
            if reports and between is not None:
                between(reports)
            report = run(
                engines,
                prompts,
                each,
                transformers=transformers,
                peers=[p for p in peers if each.batch_size <= (p.most_rows or each.batch_size)],
                progress=move,
                log=at_settings(log, each.temperature, each.batch_size) if log else None,
            )
        except (KeyboardInterrupt, SpecdecError) as ending:
            if not reports:
                raise
            reports[-1] = replace(reports[-1], interrupted=True, failure=str(ending) or None)
            break
        reports.append(report)
        if report.interrupted:
            break
    return reports


def _check_each_once(what: str, given: Sequence[float]) -> None:
    if not given or len(set(given)) < len(given):
        raise OptionError(
            f"{what} {', '.join(map(temperature_text, given))}: give at least one, and each once"
        )
