"""``specdec check``: the equivalence suite of one strategy, from the shell."""

from __future__ import annotations

from dataclasses import asdict
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdec.cli import generate_options as flags
from specdec.cli.completion import named
from specdec.cli.failures import quiet_libraries, reported
from specdec.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from specdec.testing.subject import Subject
    from specdec.testing.suite import Property, Verdict

_COLUMNS = ("property", "verdict", "examples", "largest difference", "seconds")
_WIDTHS = (29, 8, 18, 24, 7)


@reported
def check(
    name: Annotated[
        str,
        typer.Argument(help="The strategy.", show_default=False, autocompletion=named("strategy")),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer examples: under a minute.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Go on after a property that fails.")] = False,
    drafter: Annotated[
        str | None, flags.part("--drafter", "Another drafter; 'table' drafts from tables.")
    ] = None,
    policy: flags.Policy = None,
    verifier: flags.Verifier = None,
    acceptor: flags.Acceptor = None,
    option: flags.PartOptions = None,
    plugin: flags.Plugin = None,
    json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Check that a strategy is lossless, on models whose distributions are known exactly.

    Every outcome of every random draw is enumerated and the distribution of the text compared with
    the target's own; trees, cache, stop rules and randomness are checked too. A strategy that
    declares itself lossy gets its distance measured instead. Verdicts are printed as they come;
    after the first property that fails the rest is left out. Exits with 1 if a property fails.

    [bold]Examples[/bold]

    specdec check eagle2 --quick

    specdec check draft_model --drafter table -o policy.width=3

    specdec check mine --plugin my_strategy.py
    """
    from specdec.cli import terminal
    from specdec.testing.suite import FULL, PROPERTIES, QUICK

    quiet_libraries()
    swaps = {"drafter": drafter, "policy": policy, "verifier": verifier, "acceptor": acceptor}
    subject = _subject(name, swaps, flags.assignments("-o", option), plugin or [])
    excuses = {prop.name: prop.excuse(subject) for prop in PROPERTIES}
    wanted = [prop for prop in PROPERTIES if excuses[prop.name] is None]
    console = None if json else terminal.stdout()
    if console:
        console.print(subject.describe() + "\n", markup=False)
        _print(console, _COLUMNS, "bold")
    verdicts: list[Verdict] = []
    examples = QUICK if quick else FULL
    for prop in wanted:
        if not all_ and any(verdict.failure for verdict in verdicts):
            break
        verdicts.append(_checked(subject, prop, examples))
        if console:
            _print(console, _row(verdicts[-1]))
            if verdicts[-1].failure:
                console.print(f"\n{verdicts[-1].failure}\n", markup=False)
    left_out = [prop.name for prop in wanted[len(verdicts) :]]
    skipped = {prop: why for prop, why in excuses.items() if why is not None}
    if console:
        _notes(console, subject, verdicts, skipped, left_out)
    else:
        terminal.print_json(_payload(subject, verdicts, skipped, left_out))
    if any(verdict.failure for verdict in verdicts):
        raise typer.Exit(1)


def _subject(
    name: str, swaps: dict[str, str | None], options: dict[str, Any], plugins: list[str]
) -> Subject:
    """The strategy with the parts, options and plugins that were asked for."""
    from specdec.cli.plugin_file import load_plugin
    from specdec.cli.strategy_choice import choose
    from specdec.plugin.registry import Registry
    from specdec.testing.subject import Subject
    from specdec.testing.table_drafter import TablePlugin

    loaded = [load_plugin(path) for path in dict.fromkeys(plugins)]
    registry = Registry.load([TablePlugin(), *loaded])
    (choice,) = choose(registry, [name], swaps, options)
    return Subject(name, plugins=loaded, options=choice.options, **swaps)  # type: ignore[arg-type]


def _checked(subject: Subject, prop: Property, examples: int) -> Verdict:
    """The verdict on one property, with a progress bar until it is there."""
    from specdec.testing.suite import check as check_property

    what, total, done = prop.name.replace("_", " "), prop.cases_of(examples), count(1)
    with progress_bar("cases") as move:
        move(0, total, what)
        return check_property(
            subject, prop, examples=examples, progress=lambda: move(next(done), total, what)
        )


def _payload(
    subject: Subject, verdicts: list[Verdict], skipped: dict[str, str], left_out: list[str]
) -> dict[str, Any]:
    failed = any(verdict.failure for verdict in verdicts)
    return {
        "strategy": subject.strategy,
        "lossless": subject.lossless,
        "changed_options": subject.changed,
        "passed": not failed,
        "checked": subject.describe(),
        "properties": [{**asdict(v), "figure": v.figure} for v in verdicts],
        "skipped": [{"name": prop, "why": why} for prop, why in skipped.items()],
        "left_out": left_out,
        "reach": {**asdict(subject.reach), "levels_drafted": subject.levels},
    }


def _row(verdict: Verdict) -> tuple[str, ...]:
    examples = str(verdict.examples)
    if verdict.narrowed:
        examples += f" ({verdict.narrowed} narrowed)"
    if verdict.too_large:
        examples += f" (+{verdict.too_large} too large)"
    return (
        verdict.name.replace("_", " "),
        verdict.word,
        examples,
        verdict.figure or "-",
        f"{verdict.seconds:.1f}",
    )


def _print(console: Console, cells: tuple[str, ...], style: str = "") -> None:
    """One row, at once."""
    from rich.text import Text

    line = Text(style=style)
    for index, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True)):
        colour = "red" if cell == "FAILS" else "cyan" if index == 0 and not style else ""
        line.append(cell.ljust(width) + " ", style=colour)
    line.rstrip()
    console.print(line, soft_wrap=True)
    console.file.flush()


def _notes(
    console: Console,
    subject: Subject,
    verdicts: list[Verdict],
    skipped: dict[str, str],
    left_out: list[str],
) -> None:
    """What was not checked and why, how far distributions were enumerated, and the verdict."""
    for prop, why in skipped.items():
        console.print(f"{prop.replace('_', ' ')}: skipped, {why}", markup=False, style="dim")
    if any(verdict.narrowed for verdict in verdicts):
        console.print(
            "narrowed: too many outcomes, so that fewer of the case's distributions were open",
            markup=False,
            style="dim",
        )
    if left_out:
        names = ", ".join(prop.replace("_", " ") for prop in left_out)
        console.print(f"left out after the failure (--all goes on): {names}", markup=False)
    if subject.reach.rows:
        drafted = subject.levels if subject.drafts or subject.grows else None
        console.print(f"\n{subject.reach.describe(drafted)}", markup=False, style="dim")
    console.print(f"\n{_summary(subject, verdicts, left_out)}", markup=False)


def _summary(subject: Subject, verdicts: list[Verdict], left_out: list[str]) -> str:
    seconds = sum(verdict.seconds for verdict in verdicts)
    failed = sum(verdict.failure is not None for verdict in verdicts)
    distance = [v.figure for v in verdicts if v.measured and v.failure is None]
    checked = f"{len(verdicts)} properties" + (" checked" if left_out else "")
    found = f"{failed} of {checked} fail" if failed else "every property holds"
    if distance:
        rest = found if failed else "the other properties hold"
        found = f"lossy: measured up to {distance[0]}, the distribution is not judged; {rest}"
    name = subject.strategy
    if subject.changed:
        name += f" with drafter.{subject.changed}"
    return f"{name}: {found}; {seconds:.1f} s"
