"""The typer application: its commands and what they share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

import specdec
from specdec.cli.batch import batch
from specdec.cli.bench import bench
from specdec.cli.bench_paper import paper
from specdec.cli.check import check
from specdec.cli.checkpoints import convert
from specdec.cli.checkpoints import inspect as inspect_checkpoint
from specdec.cli.doctor import doctor
from specdec.cli.failures import CommandGroup
from specdec.cli.generate import generate
from specdec.cli.listing import options, plugins, strategies
from specdec.cli.trace import trace
from specdec.cli.train import train
from specdec.cli.vocabulary import vocabulary

app = typer.Typer(
    name="specdec",
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="[dim]Every command has examples: specdec generate --help[/dim]",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"specdec {specdec.__version__}")
        raise typer.Exit


def _help(command: Callable[..., Any]) -> str:
    """A docstring with a line for each paragraph, which the terminal then wraps."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """[bold]Lossless speculative decoding for Hugging Face models.[/bold]

    A cheap drafter guesses a tree of tokens, the target model verifies it in one forward, and the
    output is what the target model alone would have written.

    Start with [cyan]specdec generate "Tell me a story"[/cyan].
    """


app.callback(help=_help(root))(root)
_bench = typer.Typer(rich_markup_mode="rich")
_bench.callback(invoke_without_command=True, help=_help(bench))(bench)
_bench.command(help=_help(paper))(paper)
for _command in (
    generate,
    batch,
    trace,
    check,
    strategies,
    options,
    plugins,
    doctor,
    vocabulary,
    train,
    convert,
):
    app.command(help=_help(_command))(_command)
app.command("inspect", help=_help(inspect_checkpoint))(inspect_checkpoint)
app.add_typer(_bench, name="bench")
