"""The flags of ``specdec batch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_ROWS, _RUN = "Rows", "Run"

Prompts = Annotated[
    Path, typer.Argument(metavar="IN.JSONL", help="A row a line.", show_default=False)
]
Out = Annotated[
    Path,
    typer.Argument(metavar="OUT.JSONL", help="Its answer a line, in order.", show_default=False),
]


def _flag(panel: str, *names: str, text: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


Chat = Annotated[
    bool,
    _flag(_ROWS, "--chat", text="Prompts are what a user says in a chat, not text to go on with."),
]
Keep = Annotated[
    list[str] | None,
    _flag(
        _ROWS,
        "--keep",
        text="A field that goes into the answer as it is and need not be a setting; repeatable. "
        "An id always does.",
        metavar="FIELD",
        show_default=False,
    ),
]
TokenIds = Annotated[
    bool, _flag(_ROWS, "--token-ids", text="Write the ids of the new tokens as well.")
]
Seed = Annotated[
    int, _flag(_ROWS, "--seed", text="Of sampled rows that have no seed of their own.")
]
BatchSize = Annotated[
    int, _flag(_RUN, "--batch-size", "-b", text="Rows decoded at a time, at most.", min=1)
]
MaxBatchTokens = Annotated[
    int,
    _flag(
        _RUN,
        "--max-batch-tokens",
        text="Tokens of a batch, answers included: bounds its memory.",
        min=1,
    ),
]
Window = Annotated[
    int,
    _flag(
        _RUN,
        "--window",
        text="Rows read at a time; those of like length are decoded together.",
        min=1,
    ),
]
Quiet = Annotated[bool, _flag(_RUN, "--quiet", "-q", text="No progress bar.")]
