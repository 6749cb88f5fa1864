"""The runs of the commands of ``specdec bench``, and a warning where they cannot be trusted."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from specdec.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from specdec.bench import Contender, Prompt, Report, Settings
    from specdec.engine import Engine


def measure(
    engines: Mapping[str, Engine],
    prompts: Sequence[Prompt],
    settings: Settings,
    temperatures: Sequence[float],
    *,
    batch_sizes: Sequence[int] | None = None,
    transformers: bool,
    prompt_lookup: bool,
    peers: Sequence[Contender] = (),
    log: Path | None,
    between: Callable[[list[Report]], object] | None = None,
) -> list[Report]:
    """Run at every temperature and batch size.

    Args:
        prompt_lookup: whether transformers' own runs too, where batches have one row.
        peers: other contenders.
        batch_sizes, log, between: as for ``run_at``.
    """
    from specdec.bench import run_at
    from specdec.bench.baseline import TransformersContender

    def named(reports: Sequence[Report]) -> list[Report]:
        return [replace(report, command=_command()) for report in reports]

    first = next(iter(engines.values()))
    with progress_bar("runs") as progress:
        reports = run_at(
            temperatures,
            engines,
            prompts,
            settings,
            batch_sizes=batch_sizes,
            transformers=transformers,
            peers=[*[TransformersContender.with_prompt_lookup(first)] * prompt_lookup, *peers],
            progress=progress,
            log=log,
            between=None if between is None else lambda reports: between(named(reports)),
        )
    return named(reports)


def _command() -> str | None:
    """The command line that this is, if it is one."""
    arguments = sys.argv[1:]
    return f"specdec {shlex.join(arguments)}" if arguments[:1] == ["bench"] else None


def warn_of_noise(reports: Sequence[Report]) -> None:
    """On stderr, where plain decoding was not as fast as itself."""
    from specdec.bench.setting_names import settings_text

    for report in reports:
        if not report.quiet:
            at = f" at {settings_text(report.settings)}" if len(reports) > 1 else ""
            typer.echo(
                typer.style("warning: ", fg="yellow")
                + f"plain decoding beside itself came to {report.noise.median:.2f}x{at}: the "
                "machine is busy, or there are too few prompts and repetitions to tell",
                err=True,
            )
