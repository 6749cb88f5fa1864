"""What the commands of ``specdec bench`` share: the choices of a user, progress, files."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench import PromptSet, Report, Settings
    from specdec.engine import Engine

STDOUT = Path("-")


def temperatures(given: str) -> list[float]:
    """The numbers in ``0,1``.

    Raises:
        OptionError: something else.
    """
    try:
        return [float(each) for each in given.split(",")]
    except ValueError:
        raise OptionError(
            f"--temperature {given}: give a number, or several with commas, such as 0,1"
        ) from None


def prompt_sets(data: Path | None) -> list[PromptSet]:
    """Those of a path, or the built-in ones."""
    from specdec.bench import load_sets
    from specdec.bench.prompt_sets import BUILT_IN

    return [BUILT_IN] if data is None else load_sets(data)


def measure(
    engines: Mapping[str, Engine],
    sets: Sequence[PromptSet],
    settings: Settings,
    at: Sequence[float],
    *,
    encoding: Mapping[str, Any],
    transformers: bool,
    prompt_lookup: bool,
    log: Path | None,
    log_apart: bool = False,
) -> list[Report]:
    """Encode the prompts and run, at every temperature.

    Args:
        encoding: arguments of ``encode_sets``.
        prompt_lookup: whether transformers' own runs too.
        log, log_apart: as for ``run_at``.
    """
    from specdec.bench import encode_sets, run_at
    from specdec.bench.baseline import TransformersContender

    first = next(iter(engines.values()))
    encoded = encode_sets(sets, first, max_new_tokens=settings.max_new_tokens, **encoding)
    with _progress() as progress:
        reports = run_at(
            at,
            engines,
            encoded,
            settings,
            transformers=transformers,
            peers=[TransformersContender.with_prompt_lookup(first)] * prompt_lookup,
            progress=progress,
            log=log,
            log_apart=log_apart,
        )
    return [replace(report, command=_command()) for report in reports]


def set_threads(count: int | None) -> None:
    """Of torch, if there is a number."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def check_prompt_lookup(wanted: bool, batch_size: int) -> None:
    """transformers' prompt lookup decodes one row at a time.

    Raises:
        OptionError: it is wanted for larger batches.
    """
    if wanted and batch_size > 1:
        raise OptionError(
            f"--prompt-lookup --batch-size {batch_size}: transformers' prompt lookup decodes one "
            "row at a time; give --no-prompt-lookup or batches of 1"
        )


def warn_of_noise(reports: Sequence[Report]) -> None:
    """On stderr, where plain decoding was not as fast as itself."""
    from specdec.bench.temperature_names import written

    for report in reports:
        if not report.quiet:
            temperature = written(report.settings["temperature"])
            at = f" at temperature {temperature}" if len(reports) > 1 else ""
            typer.echo(
                typer.style("warning: ", fg="yellow")
                + f"plain decoding beside itself came to {report.noise.median:.2f}x{at}: the "
                "machine is busy, or there are too few prompts and repetitions to tell",
                err=True,
            )


def _command() -> str | None:
    """The command line that this is, if it is one."""
    arguments = sys.argv[1:]
    return f"specdec {shlex.join(arguments)}" if arguments[:1] == ["bench"] else None


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr, if that is a terminal; yields what moves it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Drawn when something moves, never by a thread of its own: that would take CPU time.
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("")

        def move(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what, refresh=True)

        yield move
