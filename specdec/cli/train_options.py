"""The flags of ``specdec train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_DATA, _RUN, _OWN = "Data", "Run", "Answers of the model"


def _flag(panel: str, *names: str, text: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


MoreData = Annotated[
    list[str] | None, typer.Argument(help="More data, after --data.", show_default=False)
]
Data = Annotated[
    list[str] | None,
    _flag(_DATA, "--data", "-d", text="A file, folder or data set; several may follow each other."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-O",
        help="Folder of the finished checkpoint and its card. [dim]required[/dim]",
        show_default=False,
    ),
]
Recipe = Annotated[
    str | None,
    _flag(_RUN, "--recipe", text="How to train, where the trainer has several; as -o recipe=NAME."),
]
Start = Annotated[
    str | None,
    _flag(_RUN, "--start", text="A checkpoint to go on from; as -o start=FOLDER."),
]
Options = Annotated[
    list[str] | None,
    _flag(
        _RUN,
        "--option",
        "-o",
        text="Set an option of the trainer; repeatable. See: specdec options eagle.",
        metavar="NAME=VALUE",
    ),
]
Regenerate = Annotated[
    bool, _flag(_OWN, "--regenerate", text="Let the model answer the prompts of the data first.")
]
Temperatures = Annotated[
    str | None,
    _flag(_OWN, "--temperatures", text="In turns, e.g. 0,0.7,1. [dim]default: 0,1[/dim]"),
]
NewTokens = Annotated[
    int | None,
    _flag(_OWN, "--new-tokens", text="Tokens of an answer at most. [dim]default: 256[/dim]", min=1),
]
Answers = Annotated[
    int | None,
    _flag(_OWN, "--answers", text="Answers at most. [dim]default: one a prompt[/dim]", min=1),
]
AnswerBatch = Annotated[
    int | None,
    _flag(
        _OWN,
        "--answer-batch",
        text="Prompts that are answered at a time, at most. [dim]default: 64[/dim]",
        min=1,
    ),
]
AnswerBatchTokens = Annotated[
    int | None,
    _flag(
        _OWN,
        "--answer-batch-tokens",
        text="Tokens of such a batch at most, answers included: bounds its memory. "
        "[dim]default: 50000[/dim]",
        min=1,
    ),
]
LongestPrompt = Annotated[
    int | None,
    _flag(
        _OWN,
        "--longest-prompt",
        text="Tokens of a prompt at most; longer ones are left out. [dim]default: 1024[/dim]",
        min=1,
    ),
]
Minutes = Annotated[
    float | None, _flag(_RUN, "--minutes", text="Train so long, evaluations included.")
]
Epochs = Annotated[
    float | None,
    _flag(_RUN, "--epochs", text="Passes over the data. [dim]default: 5[/dim]"),
]
Steps = Annotated[int | None, _flag(_RUN, "--steps", text="Steps of the optimizer.", min=1)]
Length = Annotated[
    int | None,
    _flag(
        _RUN,
        "--length",
        text="Tokens of a document at most; the rest is cut. [dim]default: 1024[/dim]",
        min=8,
    ),
]
BatchTokens = Annotated[
    int | None,
    _flag(_RUN, "--batch-tokens", text="Tokens of a batch. [dim]default: 4096[/dim]", min=8),
]
Settings = Annotated[
    list[str] | None,
    _flag(
        _RUN,
        "--set",
        text="Any other setting, e.g. optimizer=adamw or patience=0; repeatable. "
        "See docs/training.md.",
        metavar="NAME=VALUE",
    ),
]
Work = Annotated[
    Path | None,
    _flag(
        _RUN,
        "--work",
        text="Folder of answers, hidden states and checkpoints; runs on the same data may share "
        "it. [dim]default: OUT.work[/dim]",
    ),
]
Seed = Annotated[int | None, _flag(_RUN, "--seed", text="Of weights, order and noise.", min=0)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
