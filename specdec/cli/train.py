"""``specdec train``: a drafter for a model, from text."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdec.cli import train_options as flags
from specdec.cli.completion import named
from specdec.cli.failures import INTERRUPTED, quiet_libraries, reported
from specdec.cli.flag_values import numbers, set_threads
from specdec.cli.generate_options import (
    Debug,
    Device,
    DeviceMap,
    Dtype,
    Json,
    Model,
    Threads,
    TrustRemoteCode,
    assignments,
)
from specdec.cli.output_files import check_named

if TYPE_CHECKING:
    from specdec.training.card import Summary

_STOPPED = "stopped: the same command goes on from here"


@reported
def train(
    trainer: Annotated[
        str,
        typer.Argument(
            help="What to train: [cyan]eagle[/cyan], [cyan]medusa[/cyan], [cyan]hydra[/cyan], "
            "[cyan]draft-model[/cyan], or what a plugin adds.",
            autocompletion=named("trainer"),
        ),
    ],
    more_data: flags.MoreData = None,
    data: flags.Data = None,
    out: flags.Out = None,
    model: Model = None,
    recipe: flags.Recipe = None,
    start: flags.Start = None,
    option: flags.Options = None,
    regenerate: flags.Regenerate = False,
    temperatures: flags.Temperatures = None,
    new_tokens: flags.NewTokens = None,
    answers: flags.Answers = None,
    answer_batch: flags.AnswerBatch = None,
    answer_batch_tokens: flags.AnswerBatchTokens = None,
    longest_prompt: flags.LongestPrompt = None,
    minutes: flags.Minutes = None,
    epochs: flags.Epochs = None,
    steps: flags.Steps = None,
    length: flags.Length = None,
    batch_tokens: flags.BatchTokens = None,
    set_: flags.Settings = None,
    work: flags.Work = None,
    seed: flags.Seed = None,
    dtype: Dtype = None,
    device: Device = None,
    device_map: DeviceMap = None,
    threads: Threads = None,
    trust_remote_code: TrustRemoteCode = False,
    quiet: flags.Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a [bold]drafter[/bold] for a model from dialogues or text.

    The data are dialogues or plain text: files .jsonl, .json, .txt (also .gz), folders of them, or
    the name of a data set if the library datasets is installed. A row has messages (role and
    content), prompt and response, text, or prompt_ids and answer_ids. Of a dialogue only what the
    assistant wrote is learned. Best is what the model itself writes: [cyan]--regenerate[/cyan] lets
    it answer the prompts of the data first.

    Three stages: answers (with --regenerate), the model's hidden states, kept on disk, and
    training. Before each it is told how much there is to do. Stopped by Ctrl-C or by force, in any
    of them, the same command goes on from there. What comes out is a folder that
    [cyan]--drafter[/cyan] takes, with a card and curves.

    [bold]Examples[/bold]

    specdec train eagle -m org/model --data chats.jsonl --out head --regenerate --minutes 60

    specdec train eagle -m org/model --data own/*.jsonl --out head --recipe unrolled --epochs 10

    specdec train medusa -m org/model --data chats.jsonl --out medusa-heads --minutes 30

    specdec train draft-model -m org/model --data chats.jsonl --out draft -o hidden_size=256

    specdec generate "Hi" -m org/model --strategy eagle3 --drafter head

    specdec options eagle shows the options of a trainer, for -o.
    """
    from specdec.cli import terminal
    from specdec.errors import OptionError

    sources = [*(data or ()), *(more_data or ())]
    if not sources:
        raise OptionError("there are no data: give --data FILE, as often as you like")
    if out is None:
        raise OptionError("there is no folder to write to: give --out FOLDER")
    check_named("--out", out, "head")
    check_named("--work", work, "head.work")
    answer_options = {
        "temperatures": None
        if temperatures is None
        else numbers("--temperatures", temperatures, float, "0,0.7,1"),
        "new_tokens": new_tokens,
        "most": answers,
        "batch": answer_batch,
        "max_batch_tokens": answer_batch_tokens,
        "longest_prompt": longest_prompt,
    }
    asked = {name: value for name, value in answer_options.items() if value is not None}
    if asked and not regenerate:
        raise OptionError(
            "--temperatures, --new-tokens, --answers, --answer-batch, --answer-batch-tokens and "
            "--longest-prompt are for answers that the model writes: give --regenerate as well"
        )
    with terminal.working("loading the model"):
        from specdec.training.pipeline import train as run
        from specdec.training.settings import make_settings

        quiet_libraries()
        set_threads(threads)
    shorthands = {"recipe": recipe, "start": start}
    flagged: dict[str, Any] = {
        "minutes": minutes,
        "epochs": epochs,
        "steps": steps,
        "length": length,
        "batch_tokens": batch_tokens,
        "seed": seed,
    }
    own = {name: value for name, value in shorthands.items() if value is not None}
    own = _together(own, assignments("-o", option), "-o")
    settings = {name: value for name, value in flagged.items() if value is not None}
    settings = _together(settings, assignments("--set", set_), "--set")
    make_settings(settings)
    try:
        summary = run(
            model,
            data=sources,
            out=out,
            trainer=trainer,
            options=own,
            work=work,
            regenerate=asked or regenerate,
            progress=not (quiet or json),
            dtype=dtype,
            device=device,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            command=shlex.join(["specdec", *sys.argv[1:]]),
            **settings,
        )
    except KeyboardInterrupt:
        if not json:
            typer.echo(_STOPPED, err=True)
        raise
    if summary.main:
        _tell(summary, json)
    if summary.ended == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _together(flags: dict[str, Any], assigned: dict[str, Any], by: str) -> dict[str, Any]:
    """What flags of their own say and what is assigned by name.

    Raises:
        OptionError: something that both say.
    """
    from specdec.errors import OptionError

    if twice := sorted(flags.keys() & assigned.keys()):
        flag = "--" + twice[0].replace("_", "-")
        raise OptionError(f"{twice[0]} is given by {flag} and by {by} as well: give it once")
    return {**flags, **assigned}


def _tell(summary: Summary, json: bool) -> None:
    from specdec.cli import terminal

    if json:
        return terminal.print_json(asdict(summary))
    if summary.ended == "interrupted":
        typer.echo(_STOPPED, err=True)
        return
    rows: list[tuple[str, Any]] = [
        ("checkpoint", summary.out),
        ("steps", f"{summary.steps:,} ({summary.ended}), the best at {summary.best_step:,}"),
        ("tokens", f"{summary.tokens:,}, {summary.tokens_per_second:,.0f} a second"),
        ("held-out agreement", "  ".join(f"{each:.3f}" for each in summary.agreement)),
        ("tau", None if summary.tau is None else f"{summary.tau:.2f}"),
        ("seconds", ", ".join(f"{name} {each:.0f}" for name, each in summary.seconds.items())),
        ("peak memory", f"{summary.peak_memory / 1e9:.1f} GB"),
    ]
    by = f"--strategy {summary.strategy} " if summary.strategy else ""
    notes = [f"use it with {by}--drafter {summary.out}; {summary.work} may be removed"]
    terminal.stdout().print(terminal.pairs(rows, notes=notes))
