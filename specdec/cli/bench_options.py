"""The flags of ``specdec bench`` and ``specdec bench paper`` that no other command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from specdec.cli.completion import listed, part_options

_PARTS, _RUNS, _REPORT = "Parts", "Runs", "Report"


def _runs(flag: str, text: str, **more: Any) -> Any:
    return typer.Option(flag, help=text, rich_help_panel=_RUNS, **more)


def _data(built_in: str) -> Any:
    return _runs(
        "--data",
        'A folder of .jsonl prompt sets, or one: lines with a field "prompt" or "turns"; the '
        f"question.jsonl files of EAGLE and Spec-Bench as they are. [dim]default: {built_in}[/dim]",
        show_default=False,
    )


def _file(flag: str, text: str) -> Any:
    return typer.Option(
        flag, help=text, metavar="PATH", rich_help_panel=_REPORT, show_default=False
    )


Strategies = Annotated[
    str,
    typer.Option(
        "--strategies",
        metavar="A,B,C",
        help="What to measure: names of strategies. NAME:VARIANT runs one of them again with "
        "options of its own. plain always runs.",
        rich_help_panel=_PARTS,
        autocompletion=listed("strategy"),
    ),
]
PartOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="[NAME.]ROLE.OPTION=VALUE",
        help="Set an option of a part, of one strategy (eagle2.policy.budget=8) or of every one "
        "that has it (policy.depth=4); ROLE=PART takes another part "
        "(draft_model.acceptor=match). Repeatable.",
        rich_help_panel=_PARTS,
        show_default=False,
        autocompletion=part_options,
    ),
]
Inflate = Annotated[
    str | None,
    typer.Option(
        "--inflate",
        metavar="PRESET",
        help="Make the model and its EAGLE head cost what a large one does, with the same text: "
        "240m, 1b or 8b. Options that suit the small model do not apply.",
        rich_help_panel=_PARTS,
        show_default=False,
    ),
]
Data = Annotated[Path | None, _data("eight built-in prompts")]
TaskData = Annotated[
    Path | None,
    _data(
        "six built-in tasks: conversation, translation, summarization, questions, mathematics, code"
    ),
]
Prompts = Annotated[int, _runs("--prompts", "Prompts of each set.", min=1)]
Turns = Annotated[
    int | None,
    _runs(
        "--turns",
        "The most turns of a prompt that has several. [dim]default: all, each contender going on "
        "from its own answers[/dim]",
        min=1,
        show_default=False,
    ),
]
Length = Annotated[
    int | None,
    _runs("--context", "Make every prompt about this many tokens long.", min=1, show_default=False),
]
BatchSize = Annotated[int, _runs("--batch-size", "Prompts decoded together.", min=1)]
BatchSizes = Annotated[
    str,
    _runs(
        "--batch-size",
        "Prompts decoded together; several with commas, 1,2,4,8, one report for each and a figure "
        "of tokens/s.",
    ),
]
MaxNewTokens = Annotated[int, _runs("--max-new-tokens", "Bound on new tokens.", min=1)]
Repetitions = Annotated[
    int, _runs("--repetitions", "Passes over all prompts, after a warm-up.", min=1)
]
Temperature = Annotated[
    str, _runs("--temperature", "0 is greedy; several with commas, 0,1, one report for each.")
]
Seed = Annotated[int, _runs("--seed", "Of the first prompt; the others count on.")]
Transformers = Annotated[
    bool, _runs("--transformers/--no-transformers", "Run transformers' own generate too.")
]
Log = Annotated[
    Path | None,
    _runs(
        "--log",
        "Keep every finished round in this file, with the temperature and batch size in its name "
        "(runs-t0.jsonl). If it has some of the same benchmark already, go on from them: a run "
        "that was stopped or killed loses nothing.",
        metavar="PATH",
        show_default=False,
    ),
]
PromptLookup = Annotated[
    bool,
    _runs(
        "--prompt-lookup/--no-prompt-lookup",
        "Run transformers' own prompt lookup too (prompt_lookup_num_tokens=10; one row at a time).",
    ),
]
Json = Annotated[
    Path | None,
    _file("--json", "Write everything as JSON; [cyan]-[/cyan] prints it and nothing else."),
]
Csv = Annotated[Path | None, _file("--csv", "Write a line for each strategy and set.")]
Markdown = Annotated[Path | None, _file("--markdown", "Write a page for the record.")]
Plot = Annotated[Path | None, _file("--plot", "Draw the speedups: .png, .svg or .pdf.")]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where results.md, results.json, results.csv, the figures and the runs go. The same "
        "command again goes on with what is there.",
        rich_help_panel=_REPORT,
        show_default=False,
    ),
]
Redraw = Annotated[
    bool,
    typer.Option(
        "--redraw",
        help="Only draw the figures again, from results.json.",
        rich_help_panel=_REPORT,
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        "--strategies",
        metavar="A,B,C",
        help="What to compare, in place of every strategy that has what it needs for the model.",
        rich_help_panel=_PARTS,
        show_default=False,
        autocompletion=listed("strategy"),
    ),
]
Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peers",
        metavar="KEY=PATH",
        help="Other decoders on the same target, each in a process of its own: "
        "eagle.checkout=CHECKOUT, the official EAGLE code with the heads and trees of eagle2, and "
        "eagle.python=PYTHON, an environment that runs it; vllm.python=PYTHON, one with vLLM. "
        "Repeatable.",
        rich_help_panel=_PARTS,
        show_default=False,
    ),
]
Ablations = Annotated[
    bool,
    typer.Option(
        "--ablations",
        help="Also EAGLE-2 without value, without reranking, and with other budgets, depths and "
        "widths; auto without calibration, coupling and costs.",
        rich_help_panel=_PARTS,
    ),
]
