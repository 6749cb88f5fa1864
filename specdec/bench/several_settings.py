"""``run_at``: one benchmark at several temperatures, one report each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from specdec.bench.benchmark import run
from specdec.bench.benchmark_report import Report
from specdec.bench.contenders import Contender
from specdec.bench.prompt_sets import Prompt
from specdec.bench.runner import Progress
from specdec.bench.settings import Settings
from specdec.bench.temperature_names import at_temperature, written
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
    transformers: bool = True,
    peers: Sequence[Contender] = (),
    progress: Progress | None = None,
    log: Path | None = None,
    log_apart: bool = False,
) -> list[Report]:
    """Measure at one temperature after the other; arguments as for :func:`run`.

    Ctrl-C ends all: the last report says that it was interrupted.

    Args:
        temperatures: in place of the settings' own.
        log: of one temperature; of several each has a file of its own, with the temperature in its
            name (:func:`~specdec.bench.temperature_names.at_temperature`).
        log_apart: whether one temperature has such a file too, so that adding another goes on.

    Raises:
        OptionError: temperatures that are none or not allowed, or one twice; whatever ``run``
            refuses.
        KeyboardInterrupt: Ctrl-C before the first round was over.
    """
    if not temperatures or len(set(temperatures)) < len(temperatures):
        given = ", ".join(map(written, temperatures))
        raise OptionError(f"temperatures {given}: give at least one, and each once")
    own = [replace(settings, temperature=each) for each in temperatures]
    for first in list(engines.values())[:1]:
        for each in own:  # refused before the first runs, not after
            new = each.max_new_tokens
            resolve(first.generation_config, each.decoding(), default_new_tokens=new)
    reports: list[Report] = []
    apart = log_apart or len(own) > 1
    for place, each in enumerate(own):

        def move(done: int, total: int, what: str, place: int = place) -> None:
            if progress is not None:
                progress(place * total + done, len(own) * total, what)

        try:
            report = run(
                engines,
                prompts,
                each,
                transformers=transformers,
                peers=peers,
                progress=move,
                log=at_temperature(log, each.temperature) if log and apart else log,
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
