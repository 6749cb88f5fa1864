"""``specdec check``: the equivalence suite of one strategy, from the shell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from specdec.cli.failures import quiet_libraries, reported
from specdec.cli.options import Debug, Json

if TYPE_CHECKING:
    from specdec.testing.suite import Verdict

_COLUMNS = ("property", "verdict", "examples", "largest difference", "seconds")


@reported
def check(
    name: Annotated[str, typer.Argument(help="The strategy.", show_default=False)],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer examples: seconds.")] = False,
    drafter: Annotated[
        str | None,
        typer.Option(help="Draft with this drafter; 'table' drafts from tables."),
    ] = None,
    acceptor: Annotated[str | None, typer.Option(help="Accept with this acceptor.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that a strategy is lossless, on models whose laws are known exactly.

    Every outcome of every random draw is enumerated and the law of the text compared with the
    target's own; trees, cache, stop rules and randomness are checked too. A strategy that declares
    itself lossy gets its distance measured instead. Exits with 1 if a property fails.

    [bold]Examples[/bold]

    specdec check eagle2 --quick

    specdec check draft_model --drafter table
    """
    from specdec.cli import terminal
    from specdec.testing.subject import Subject
    from specdec.testing.suite import FULL, PROPERTIES, QUICK
    from specdec.testing.suite import check as check_property

    quiet_libraries()
    subject = Subject(name, drafter=drafter, acceptor=acceptor)
    wanted = [prop for prop in PROPERTIES if prop.concerns(subject)]
    examples = QUICK if quick else FULL
    verdicts = []
    with _progress(sum(prop.cases_of(examples) for prop in wanted)) as advance:
        for prop in wanted:
            verdicts.append(
                check_property(
                    subject, prop, examples=examples, progress=partial(advance, prop.name)
                )
            )
    failed = [verdict for verdict in verdicts if verdict.failure]
    if json:
        facts = {"strategy": name, "lossless": subject.lossless, "passed": not failed}
        terminal.print_json(
            {**facts, "properties": [{**asdict(v), "figure": v.figure} for v in verdicts]}
        )
    else:
        note = _summary(name, verdicts)
        rows = [_row(verdict) for verdict in verdicts]
        console = terminal.stdout()
        console.print(terminal.table(_COLUMNS, rows, notes=[note]))
        for verdict in failed:
            console.print(f"{verdict.name}: {verdict.failure}\n", markup=False)
    if failed:
        raise typer.Exit(1)


def _row(verdict: Verdict) -> tuple[str | None, ...]:
    examples = str(verdict.examples)
    if verdict.too_large:
        examples += f" (+{verdict.too_large} too large)"
    return (
        verdict.name.replace("_", " "),
        verdict.word,
        examples,
        verdict.figure,
        f"{verdict.seconds:.1f}",
    )


def _summary(name: str, verdicts: list[Verdict]) -> str:
    seconds = sum(verdict.seconds for verdict in verdicts)
    failed = sum(verdict.failure is not None for verdict in verdicts)
    distance = [v.figure for v in verdicts if v.measured and v.failure is None]
    found = f"{failed} of {len(verdicts)} properties fail" if failed else "every property holds"
    if distance:
        rest = found if failed else "the other properties hold"
        found = f"lossy: measured up to {distance[0]}, the law is not judged; {rest}"
    return f"{name}: {found}; {seconds:.1f} s"


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr, if that is a terminal; yields what advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=total, visible=console.is_terminal)
        yield lambda name: bar.update(task, advance=1, description=name.replace("_", " "))
