"""``specdec bench paper``: every method on every task at every temperature, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from specdec.cli import bench_options as own
from specdec.cli import generate_options as flags
from specdec.cli.bench_runs import (
    check_prompt_lookup,
    measure,
    prompt_sets,
    set_threads,
    temperatures,
    warn_of_noise,
)
from specdec.cli.failures import INTERRUPTED, quiet_libraries, reported
from specdec.cli.given_options import given_options
from specdec.cli.request_from_flags import LOADING
from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench import Report
    from specdec.cli.paper_contenders import Lineup

_JSON, _CSV, _PAGE, _LOG = "results.json", "results.csv", "results.md", "runs.jsonl"
_REDRAWING = ("out", "redraw", "debug")  # what --redraw goes with
# What reading results of another shape raises, somewhere in the figures.
_OF_ANOTHER_SHAPE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError,
)  # fmt: skip


@reported
def paper(
    context: typer.Context,
    out: own.Out,
    redraw: own.Redraw = False,
    model: flags.Model = None,
    strategies: own.Methods = None,
    option: own.PartOptions = None,
    ablations: own.Ablations = False,
    data: own.Data = None,
    prompts: own.Prompts = 10,
    turns: own.Turns = None,
    batch_size: own.BatchSize = 1,
    max_new_tokens: own.MaxNewTokens = 128,
    repetitions: own.Repetitions = 1,
    temperature: own.Temperature = "0,1",
    set_: flags.Fields = None,
    seed: own.Seed = 0,
    transformers: own.Transformers = True,
    prompt_lookup: own.PromptLookup = True,
    dtype: flags.Dtype = None,
    device: flags.Device = None,
    pack: flags.Pack = False,
    compile: flags.Compile = False,
    trust_remote_code: flags.TrustRemoteCode = False,
    threads: flags.Threads = None,
    debug: flags.Debug = False,
) -> None:
    """Compare [bold]every method[/bold] on every task, as the EAGLE-2 paper's table does.

    Every strategy that has what it needs for the model runs beside plain decoding, transformers'
    own generate and its prompt lookup, interleaved, at each temperature; eagle2 and eagle3 with the
    published tree (depth 6, top_k 10, budget 60) and, where the model has options of its own for
    them, with those too. Strategies without a checkpoint are left out and named. The folder gets
    results.md, results.json, results.csv, the figures, and every finished run: after Ctrl-C or a
    kill the same command goes on.

    The six tasks of the paper come from a checkout of EAGLE: its folder eagle/data is read as it
    is. So is data/spec_bench/question.jsonl of Spec-Bench, with six tasks of its own.

    [bold]Examples[/bold]

    specdec bench paper --out results/

    specdec bench paper --out results/ -m smollm2 --data EAGLE/eagle/data

    specdec bench paper --out results/ --data Spec-Bench/data/spec_bench/question.jsonl --turns 1

    specdec bench paper --out results/ -o eagle2.drafter=path/to/head -o static_tree.drafter=...

    specdec bench paper --out ablations/ --strategies eagle2,auto --ablations --prompts 3

    specdec bench paper --out results/ --redraw
    """
    from specdec.bench.figure_style import check_matplotlib

    check_matplotlib()
    if redraw:
        if others := given_options(context, but=_REDRAWING):
            raise OptionError(
                f"--redraw draws what is in {_JSON}: {', '.join(others)} would change nothing; "
                "leave it out, or --redraw"
            )
        _tell(_redraw(out))
        return
    from specdec.bench import Settings
    from specdec.bench.table import table, tables
    from specdec.cli import terminal
    from specdec.cli.paper_contenders import make_lineup
    from specdec.plugin.registry import Registry

    quiet_libraries()
    at = temperatures(temperature)
    settings = Settings(
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
        repetitions=repetitions,
        fields=flags.assignments("--set", set_),
    )
    check_prompt_lookup(prompt_lookup, batch_size)
    sets = prompt_sets(data)
    _make_folder(out)
    set_threads(threads)
    loading = {name: context.params[name] for name in LOADING}
    with terminal.working("loading the target model and its drafters"):
        options = flags.assignments("-o", option)
        lineup = make_lineup(Registry.load(), loading, strategies, options, ablations=ablations)
    for label, reason in lineup.left_out.items():
        typer.echo(f"left out: {label}: {reason}", err=True)
    reports = measure(
        lineup.engines,
        sets,
        settings,
        at,
        encoding={"count": prompts, "turns": turns},
        transformers=transformers,
        prompt_lookup=prompt_lookup,
        log=out / _LOG,
        log_apart=True,
    )
    written = _write(reports, lineup, out)
    from specdec.bench.paper_page import notes, paper_tables

    console = terminal.stdout()
    console.print(tables(reports))
    for report in reports:
        for heading, found in paper_tables(report, lineup.ablations).items():
            console.print(heading, style="bold", markup=False)
            console.print(table(found))
    for note in notes(lineup.left_out):
        console.print(note, style="dim", markup=False)
    _tell(written)
    warn_of_noise(reports)
    if reports[-1].interrupted:
        raise typer.Exit(INTERRUPTED)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--out {out} cannot be made: {error}; give another folder") from error


def _write(reports: Sequence[Report], lineup: Lineup, out: Path) -> list[Path]:
    from specdec.bench.paper_page import paper_page
    from specdec.bench.report_export import as_csv, as_json

    results = {
        "reports": [as_json(report) for report in reports],
        "ablations": list(lineup.ablations),
        "left_out": dict(lineup.left_out),
    }
    text = json.dumps(results, indent=1) + "\n"
    (out / _JSON).write_text(text, encoding="utf-8")
    (out / _CSV).write_text(as_csv(reports), encoding="utf-8")
    figures = _draw(json.loads(text), out)
    page = paper_page(reports, lineup.ablations, lineup.left_out, figures)
    (out / _PAGE).write_text(page, encoding="utf-8")
    return [out / _PAGE, out / _JSON, out / _CSV, *figures]


def _draw(results: Mapping[str, Any], out: Path) -> list[Path]:
    from specdec.bench.figures import draw_figures

    return draw_figures(results, out)


def _redraw(out: Path) -> list[Path]:
    """The figures of the results that are there."""
    path = out / _JSON
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all(each["results"] and each["settings"] for each in found["reports"]):
            raise ValueError("a report without results")
        return _draw(found, out)
    except _OF_ANOTHER_SHAPE as error:
        raise OptionError(
            f"--redraw: {path} holds no results of specdec bench paper ({error!r}): run it without "
            "--redraw first, or give the folder of a run"
        ) from error


def _tell(written: Sequence[Path]) -> None:
    typer.echo(f"written: {', '.join(map(str, written))}", err=True)
