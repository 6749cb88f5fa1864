"""The flags of ``specdec generate``, and ``name=value`` arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from specdec.cli.completion import listed, named, part_options
from specdec.errors import OptionError
from specdec.files.json_objects import RepeatedNameError, named_once

_PARTS, _DECODING, _REPORT = "Parts", "Decoding", "Report"

Prompt = Annotated[
    str, typer.Argument(help="What to ask; [cyan]-[/cyan] reads it from standard input.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Alias, folder, hub id or .gguf file of the target model. "
        "[dim]default: the embedded one[/dim]",
        rich_help_panel=_PARTS,
        show_default=False,
        autocompletion=named("model"),
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        "--strategy",
        "-s",
        help="See: specdec strategies.",
        rich_help_panel=_PARTS,
        autocompletion=named("strategy"),
    ),
]


def part(flag: str, text: str) -> Any:
    """The flag of a role, which takes the name of a part."""
    return typer.Option(
        flag,
        help=text,
        rich_help_panel=_PARTS,
        show_default=False,
        autocompletion=named(flag.removeprefix("--")),
    )


Drafter = Annotated[
    str | None, part("--drafter", "Another drafter, or the folder or hub id of its checkpoint.")
]
Policy = Annotated[str | None, part("--policy", "Another tree policy.")]
Verifier = Annotated[str | None, part("--verifier", "Another verifier.")]
Acceptor = Annotated[str | None, part("--acceptor", "Another acceptor.")]
PartOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="ROLE.OPTION=VALUE",
        help="Set an option of a part, e.g. policy.budget=25; repeatable.",
        rich_help_panel=_PARTS,
        show_default=False,
        autocompletion=part_options,
    ),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="A plugin that is not installed, as a Python file, which is run; repeatable. For "
        "observers, see docs/observability.md.",
        rich_help_panel=_PARTS,
        show_default=False,
    ),
]


def _decoding(flag: str, text: str, **more: Any) -> Any:
    return typer.Option(flag, help=text, rich_help_panel=_DECODING, show_default=False, **more)


Raw = Annotated[bool, _decoding("--raw", "Continue the text as it stands: no chat template.")]
MaxNewTokens = Annotated[int | None, _decoding("--max-new-tokens", "Bound on new tokens.")]
Temperature = Annotated[
    float | None, _decoding("--temperature", "0 is greedy; default: as the model's config says.")
]
TopK = Annotated[int | None, _decoding("--top-k", "Sample among the k best tokens.")]
TopP = Annotated[float | None, _decoding("--top-p", "Sample within this probability mass.")]
MinP = Annotated[float | None, _decoding("--min-p", "Drop tokens below this share of the best.")]
RepetitionPenalty = Annotated[
    float | None, _decoding("--repetition-penalty", "Above 1 discourages repetition.")
]
Stop = Annotated[list[str] | None, _decoding("--stop", "Stop before this string; repeatable.")]
SpecialTokens = Annotated[
    bool, _decoding("--special-tokens", "Show special tokens, such as eos, in the text.")
]
Seed = Annotated[int | None, _decoding("--seed", "Same seed, same text. Drawn if not given.")]


def _few_threads(count: int | None) -> int | None:
    """Refuse more threads than a machine would ever start."""
    most = max(64, 4 * (cores := os.cpu_count() or 1))
    if count is not None and count > most:
        raise typer.BadParameter(
            f"{count}: this machine has {cores} cores, and more threads than that wait for each "
            f"other; give at most {most}"
        )
    return count


Samples = Annotated[
    int | None,
    _decoding(
        "--n",
        "How many texts to sample, each with a seed of its own. The first one streams; all are "
        "decoded together.",
        min=1,
    ),
]
Logprobs = Annotated[
    int | None,
    _decoding(
        "--logprobs",
        "Show the log-probability of every token, before and after logits processors and "
        "temperature, and of this number of the likeliest tokens.",
        min=0,
    ),
]
Fields = Annotated[
    list[str] | None,
    _decoding(
        "--set",
        "Any other field of transformers' GenerationConfig, e.g. no_repeat_ngram_size=3.",
        metavar="NAME=VALUE",
    ),
]
Dtype = Annotated[
    str | None, _decoding("--dtype", "float32, float64, bfloat16 or float16; default: the model's.")
]
Device = Annotated[str | None, _decoding("--device", "e.g. cpu or cuda:0; default: a GPU if any.")]
DeviceMap = Annotated[
    str | None,
    _decoding(
        "--device-map",
        "In place of --device, lay a model that is larger than one device out over several, memory "
        "and disk: auto, balanced, balanced_low_0 or sequential. Needs accelerate.",
        metavar="NAME",
    ),
]
TensorParallel = Annotated[
    bool,
    _decoding(
        "--tensor-parallel",
        "Shard the model over the processes that torchrun starts, one for each device: torchrun "
        '--nproc-per-node 2 -m specdec.cli generate "..." --tensor-parallel. The first one writes. '
        "Needs accelerate.",
    ),
]
Pack = Annotated[
    bool,
    _decoding(
        "--pack",
        "CPU: run the networks on a second copy of their weights, laid out for the processor. "
        "Faster from the first token on, for twice the memory of the weights; bfloat16, float16 "
        "and float32.",
    ),
]
Compile = Annotated[
    bool,
    _decoding(
        "--compile",
        "Compile the networks with torch.compile for the shapes that come up often. Each shape "
        "takes seconds to minutes, so it pays in long runs only; not together with --pack.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that comes with the model's checkpoint. Never asked, never run "
        "without this.",
        rich_help_panel=_PARTS,
    ),
]
Threads = Annotated[
    int | None, _decoding("--threads", "CPU threads.", min=1, callback=_few_threads)
]
Compare = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="A,B,C",
        help="Run these strategies and plain decoding in turns and print one table. "
        "-o policy.budget=25 goes to each that has it, -o eagle2.policy.budget=25 to one.",
        rich_help_panel=_REPORT,
        show_default=False,
        autocompletion=listed("strategy"),
    ),
]
Repeat = Annotated[
    int, typer.Option("--repeat", min=1, help="Measured runs of each.", rich_help_panel=_REPORT)
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain/--no-plain", help="Compare with plain decoding.", rich_help_panel=_REPORT
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Show what was decided at every step of the streamed run: draft tokens verified "
        "(budget), levels, the tokens that the tree's values add up to (expected) and those that "
        "were committed (realised). Expected above realised on average: the drafter is "
        "overconfident, below: underconfident. Any one strategy; [cyan]auto[/cyan] decides anew at "
        "every step.",
        rich_help_panel=_REPORT,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write the page to this file; one that is there is replaced.",
        rich_help_panel=_REPORT,
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object and nothing else, errors too.")
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show log records, and the traceback of an error.")
]


def assignments(flag: str, given: Sequence[str] | None) -> dict[str, Any]:
    """``["a=1", "b=x"]`` as ``{"a": 1, "b": "x"}``: values are JSON, or else strings.

    Raises:
        OptionError: an entry without ``=``, a name that comes twice.
    """
    found: dict[str, Any] = {}
    for entry in given or ():
        name, equals, value = entry.partition("=")
        name = name.strip()
        if not equals or not name:
            raise OptionError(f"{flag} {entry!r}: write name=value")
        if name in found:
            raise OptionError(f"{flag} {name} is there twice: give it once")
        try:
            found[name] = json.loads(value, object_pairs_hook=named_once)
        except RepeatedNameError as error:
            raise OptionError(f"{flag} {entry}: {error}") from error
        except json.JSONDecodeError:
            found[name] = value
    return found
