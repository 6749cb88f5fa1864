"""``specdec bench``: strategies beside plain decoding and transformers, measured in turns."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from specdec.cli import bench_options as own
from specdec.cli import generate_options as flags
from specdec.cli.compared_engines import USUAL
from specdec.cli.failures import INTERRUPTED, quiet_libraries, reported
from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench.benchmark_report import Report

_STDOUT = Path("-")


@reported
def bench(
    model: flags.Model = None,
    strategies: own.Strategies = USUAL,
    option: own.PartOptions = None,
    inflate: own.Inflate = None,
    data: own.Data = None,
    prompts: own.Prompts = 8,
    context: own.Context = None,
    batch_size: own.BatchSize = 1,
    max_new_tokens: own.MaxNewTokens = 64,
    repetitions: own.Repetitions = 3,
    temperature: own.Temperature = 0.0,
    set_: flags.Fields = None,
    seed: own.Seed = 0,
    transformers: own.Transformers = True,
    prompt_lookup: own.PromptLookup = False,
    log: own.Log = None,
    dtype: flags.Dtype = None,
    device: flags.Device = None,
    pack: flags.Pack = False,
    compile: flags.Compile = False,
    trust_remote_code: flags.TrustRemoteCode = False,
    threads: flags.Threads = None,
    json: own.Json = None,
    csv: own.Csv = None,
    markdown: own.Markdown = None,
    plot: own.Plot = None,
    debug: flags.Debug = False,
) -> None:
    """Measure strategies beside [bold]plain decoding[/bold] and transformers' own generate.

    All run on one loaded model, in turns on every prompt and several times over. Tables show tau,
    speed and its spread, whether the tokens are plain decoding's, the work and where the time goes.
    Plain decoding runs twice: how far it is from itself is the noise of the machine. Ctrl-C shows
    what has been measured.

    [bold]Examples[/bold]

    specdec bench

    specdec bench --strategies eagle2 --prompts 2 --max-new-tokens 16 --repetitions 1

    specdec bench --strategies eagle2,eagle2:wide -o eagle2:wide.policy.top_k=10

    specdec bench --strategies eagle2,draft_model -o draft_model.acceptor=match --batch-size 4

    specdec bench --inflate 240m --dtype bfloat16 -o policy.depth=4 --context 512

    specdec bench --inflate 240m --dtype bfloat16 --pack -o eagle2.drafter.vocabulary=4096

    specdec bench -m meta-llama/Llama-2-7b-chat-hf -o drafter=yuhuili/EAGLE-llama2-chat-7B

    specdec bench --data prompts/ --prompts 20 --json out.json --csv out.csv --plot out.png

    specdec bench --data prompts/ --log runs.jsonl  [dim]# the same again goes on after a kill[/dim]
    """
    from specdec.cli import terminal

    files = {"--json": json, "--csv": csv, "--markdown": markdown, "--plot": plot}
    for flag, path in [*files.items(), ("--log", log)]:
        _check_file(flag, path)
    loading = {
        "model": model,
        "dtype": dtype,
        "device": device,
        "pack": pack,
        "compile": compile,
        "trust_remote_code": trust_remote_code,
    }
    decoding = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "batch_size": batch_size,
        "repetitions": repetitions,
        "fields": flags.assignments("--set", set_),
    }
    report = _measure(
        strategies=strategies,
        options=flags.assignments("-o", option),
        loading=loading,
        inflate=inflate,
        threads=threads,
        prompts={"data": data, "count": prompts, "context": context},
        decoding=decoding,
        baselines={"transformers": transformers, "prompt_lookup": prompt_lookup},
        log=log,
    )
    report = replace(report, command=_command())
    _write(report, files)
    if json != _STDOUT:
        from specdec.bench.table import table

        terminal.stdout().print(table(report))
    if not report.quiet:
        typer.echo(
            typer.style("warning: ", fg="yellow")
            + f"plain decoding beside itself came to {report.noise.median:.2f}x: the machine is "
            "busy, or there are too few prompts and repetitions to tell",
            err=True,
        )
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)


def _measure(
    *,
    strategies: str,
    options: dict[str, Any],
    loading: dict[str, Any],
    inflate: str | None,
    threads: int | None,
    prompts: dict[str, Any],
    decoding: dict[str, Any],
    baselines: dict[str, bool],
    log: Path | None,
) -> Report:
    """Load, read the prompts and run."""
    from specdec.bench import Settings, encode_sets, load_sets, run
    from specdec.bench.baseline import TRANSFORMERS, TransformersContender
    from specdec.bench.prompt_sets import BUILT_IN
    from specdec.cli import terminal
    from specdec.cli.choices import PLAIN
    from specdec.cli.compared_engines import choose_labelled, labels_of, make_engines
    from specdec.plugin.registry import Registry

    quiet_libraries()
    settings = Settings(**decoding)
    if baselines["prompt_lookup"] and settings.batch_size > 1:
        raise OptionError(
            f"--prompt-lookup --batch-size {settings.batch_size}: transformers' prompt lookup "
            "decodes one row at a time; leave out one of the two"
        )
    sets = [BUILT_IN] if prompts["data"] is None else load_sets(prompts["data"])
    registry = Registry.load()
    labels = [each for each in labels_of(registry, strategies) if each not in (PLAIN, TRANSFORMERS)]
    choices = choose_labelled(registry, labels or [PLAIN], options)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with terminal.working("loading the target model and its drafters"):
        engines = make_engines(registry, choices, loading, inflate)
        encoded = encode_sets(
            sets,
            next(iter(engines.values())),
            max_new_tokens=settings.max_new_tokens,
            count=prompts["count"],
            context=prompts["context"],
        )
    first = next(iter(engines.values()))
    peers = [TransformersContender.with_prompt_lookup(first)] * baselines["prompt_lookup"]
    with _progress() as progress:
        return run(
            engines,
            encoded,
            settings,
            transformers=baselines["transformers"],
            peers=peers,
            progress=progress,
            log=log,
        )


def _check_file(flag: str, path: Path | None) -> None:
    """Refuse before the runs what could not be written after them."""
    if path is None or (flag == "--json" and path == _STDOUT):
        return
    if not path.parent.is_dir() or path.is_dir():
        raise OptionError(f"{flag} {path}: give a file in a folder that exists")
    if flag == "--plot":
        from specdec.bench.plot import check_plot

        check_plot(path)


def _write(report: Report, files: dict[str, Path | None]) -> None:
    import json

    from specdec.bench.markdown import markdown
    from specdec.bench.plot import plot
    from specdec.bench.report_export import as_csv, as_json
    from specdec.cli import terminal

    if files["--json"] == _STDOUT:
        terminal.print_json(as_json(report))
    elif path := files["--json"]:
        path.write_text(json.dumps(as_json(report), indent=2) + "\n", encoding="utf-8")
    if path := files["--csv"]:
        path.write_text(as_csv(report), encoding="utf-8")
    if path := files["--markdown"]:
        path.write_text(markdown(report), encoding="utf-8")
    if path := files["--plot"]:
        plot(report, path)


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
