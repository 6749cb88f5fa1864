"""The typer application: its commands and what they share."""

from __future__ import annotations

from typing import Annotated

import typer

import specdec
from specdec.cli.bench import bench
from specdec.cli.check import check
from specdec.cli.generate import generate
from specdec.cli.listing import options, plugins, strategies
from specdec.cli.vocabulary import vocabulary

app = typer.Typer(
    name="specdec",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="[dim]Every command has examples: specdec generate --help[/dim]",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"specdec {specdec.__version__}")
        raise typer.Exit


@app.callback()
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


app.command()(generate)
app.command()(bench)
app.command()(check)
app.command()(strategies)
app.command()(options)
app.command()(plugins)
app.command()(vocabulary)
