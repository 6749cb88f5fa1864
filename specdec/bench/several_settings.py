"""``run_at``: one benchmark at several temperatures and batch sizes, one report for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.bench.benchmark import run
from specdec.bench.benchmark_report import Report
from specdec.bench.contenders import Contender, takes
from specdec.bench.prompt_sets import Prompt
from specdec.bench.runner import Progress, batches_of
from specdec.bench.setting_names import at_settings, temperature_text
from specdec.bench.settings import Settings
from specdec.errors import OptionError
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
    log_apart: bool = False,
) -> list[Report]:
    """Measure at one temperature after the other, with one batch size after the other; arguments as
    for :func:`run`.

    Ctrl-C ends all: the last report says that it was interrupted.

    Args:
        temperatures: in place of the settings' own.
        batch_sizes: in place of the settings' own; all temperatures are measured with one before
            the next. Peers that take fewer rows are left out of the larger ones.
        log: of one report; of several each has a file of its own, with temperature and batch size
            in its name (:func:`~specdec.bench.setting_names.at_settings`).
        log_apart: whether one report has such a file too, so that adding another goes on.

    Raises:
        OptionError: temperatures or batch sizes that are none or not allowed, or one twice;
            whatever ``run`` refuses.
        KeyboardInterrupt: Ctrl-C before the first round was over.
    """
    sizes = [settings.batch_size] if batch_sizes is None else batch_sizes
    _check_each_once("temperatures", temperatures)
    _check_each_once("batch sizes", sizes)
    own = [
        replace(settings, temperature=temperature, batch_size=size)
        for size in sizes
        for temperature in temperatures
    ]
    for first in list(engines.values())[:1]:
        for each in own:  # refused before the first runs, not after
            new = each.max_new_tokens
            resolve(first.generation_config, each.decoding(), default_new_tokens=new)
    rounds = [len(batches_of(prompts, s.batch_size)) * s.repetitions + 1 for s in own]
    reports: list[Report] = []
    apart = log_apart or len(own) > 1
    for place, each in enumerate(own):

        def move(done: int, total: int, what: str, place: int = place) -> None:
            if progress is not None:
                contenders = total // rounds[place]
                before = sum(rounds[:place]) * contenders
                progress(before + done, sum(rounds) * contenders, what)

        try:
            report = run(
                engines,
                prompts,
                each,
                transformers=transformers,
                peers=[peer for peer in peers if takes(peer, each.batch_size)],
                progress=move,
                log=at_settings(log, each.temperature, each.batch_size) if log and apart else log,
            )
        except KeyboardInterrupt:
            if not reports:
                raise
            reports[-1] = replace(reports[-1], interrupted=True)
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
