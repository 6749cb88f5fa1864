"""``specdec bench paper``: every method on every task at every temperature, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from specdec.cli import bench_options as bench_flags
from specdec.cli import generate_options as flags
from specdec.cli.bench_runs import measure, warn_of_noise
from specdec.cli.failures import INTERRUPTED, quiet_libraries, reported
from specdec.cli.flag_values import (
    bench_fields,
    check_one_row,
    numbers,
    prompt_sets,
    set_threads,
)
from specdec.cli.given_options import given_options
from specdec.cli.paper_files import make_folder, redraw_figures, write_results
from specdec.cli.request_from_flags import LOADING
from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench import Report
    from specdec.cli.paper_contenders import PaperEngines

_LOG = "runs.jsonl"
_ONE_ROW = "it decodes one row at a time"
_REDRAWING = ("out", "redraw", "debug")  # what --redraw goes with


@reported
def paper(
    context: typer.Context,
    out: bench_flags.Out,
    redraw: bench_flags.Redraw = False,
    model: flags.Model = None,
    strategies: bench_flags.Methods = None,
    option: bench_flags.PartOptions = None,
    ablations: bench_flags.Ablations = False,
    peers: bench_flags.Peers = None,
    data: bench_flags.TaskData = None,
    prompts: bench_flags.Prompts = 10,
    turns: bench_flags.Turns = None,
    batch_size: bench_flags.BatchSizes = "1",
    max_new_tokens: bench_flags.MaxNewTokens = 128,
    repetitions: bench_flags.Repetitions = 1,
    temperature: bench_flags.Temperature = "0,1",
    set_: flags.Fields = None,
    seed: bench_flags.Seed = 0,
    transformers: bench_flags.Transformers = True,
    prompt_lookup: bench_flags.PromptLookup = True,
    dtype: flags.Dtype = None,
    device: flags.Device = None,
    device_map: flags.DeviceMap = None,
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
    results.md, results.json, results.csv and the figures, of every temperature and batch size once
    it is finished, and every finished run: after Ctrl-C or a kill the same command goes on.

    Without --data there are six small tasks of three prompts each, which show how the comparison
    works and are too few to rank methods. The six tasks of the paper come from a checkout of EAGLE:
    its folder eagle/data is read as it is. So is data/spec_bench/question.jsonl of Spec-Bench, with
    six tasks of its own.

    [bold]Examples[/bold]

    specdec bench paper --out results/

    specdec bench paper --out results/ -m smollm2 --data EAGLE/eagle/data

    specdec bench paper --out results/ --data Spec-Bench/data/spec_bench/question.jsonl --turns 1

    specdec bench paper --out results/ -o eagle2.drafter=path/to/head -o static_tree.drafter=...

    specdec bench paper --out ablations/ --strategies eagle2,auto --ablations --prompts 3

    specdec bench paper --out batches/ --strategies eagle2,auto --batch-size 1,2,4,8 --prompts 8

    specdec bench paper --out results/ --peers eagle.checkout=EAGLE --peers eagle.python=PYTHON

    specdec bench paper --out results/ --redraw
    """
    from specdec.bench.figure_style import check_matplotlib

    check_matplotlib()
    if redraw:
        if others := given_options(context, but=_REDRAWING):
            raise OptionError(
                f"--redraw draws what is in results.json: {', '.join(others)} would change "
                "nothing; leave it out, or --redraw"
            )
        _print_written(redraw_figures(out))
        return
    from specdec.bench import Settings, encode_sets
    from specdec.bench.baseline import PROMPT_LOOKUP
    from specdec.bench.built_in_prompts import TASKS
    from specdec.bench.contenders import ContenderError
    from specdec.cli import terminal
    from specdec.cli.paper_contenders import make_paper_engines
    from specdec.cli.paper_peers import started_peers
    from specdec.plugin.registry import Registry

    quiet_libraries()
    temperatures = numbers("--temperature", temperature, float, "0,1")
    sizes = numbers("--batch-size", batch_size, int, "1,2,4")
    settings = Settings(
        max_new_tokens=max_new_tokens,
        seed=seed,
        repetitions=repetitions,
        fields=bench_fields(set_),
    )
    asked_for = prompt_lookup and "--prompt-lookup" in given_options(context)
    check_one_row("--prompt-lookup", asked_for, min(sizes))
    check_one_row("--peers", bool(peers), min(sizes))
    options, beside = flags.assignments("-o", option), flags.assignments("--peers", peers)
    sets = prompt_sets(data, TASKS)
    make_folder(out)
    set_threads(threads)
    loading = {name: context.params[name] for name in LOADING}
    with terminal.working("loading the target model and its drafters"):
        registry = Registry.load()
        compared = make_paper_engines(registry, loading, strategies, options, ablations=ablations)
    first = next(iter(compared.engines.values()))
    encoded = encode_sets(sets, first, max_new_tokens=max_new_tokens, count=prompts, turns=turns)
    with started_peers(
        beside, registry, compared, model, encoded, settings, sampled=max(temperatures) > 0
    ) as started:
        one_row = [PROMPT_LOOKUP] * prompt_lookup + [each.label for each in started]
        batched = {f"{label} in batches": _ONE_ROW for label in one_row * (max(sizes) > 1)}
        compared = replace(compared, left_out={**compared.left_out, **batched})
        for label, reason in compared.left_out.items():
            typer.echo(f"left out: {label}: {reason}", err=True)
        reports = measure(
            compared.engines,
            encoded,
            settings,
            temperatures,
            batch_sizes=sizes,
            transformers=transformers,
            prompt_lookup=prompt_lookup and min(sizes) == 1,
            peers=started,
            log=out / _LOG,
            between=lambda finished: _write_meanwhile(finished, compared, out),
        )
    failure = reports[-1].failure
    try:
        try:
            _show(reports, compared)
        finally:  # though nobody may read what is shown
            _print_written(write_results(reports, compared, out))
    except OptionError as error:
        raise ContenderError(f"{failure}; {error}") if failure else error from None
    warn_of_noise(reports)
    if failure:
        raise ContenderError(f"{failure}; what was finished before is written")
    if reports[-1].interrupted:
        raise typer.Exit(INTERRUPTED)


def _write_meanwhile(reports: Sequence[Report], compared: PaperEngines, out: Path) -> None:
    """What is finished, while other settings are to come: a file that cannot be written is said,
    and tried again at the end."""
    try:
        write_results(reports, compared, out)
    except OptionError as error:
        typer.echo(f"specdec: {error}", err=True)


def _show(reports: Sequence[Report], compared: PaperEngines) -> None:
    """Tables on standard output: all measures, then the methods by task."""
    from specdec.bench.paper_page import notes, paper_tables
    from specdec.bench.table import table, tables
    from specdec.cli import terminal

    console = terminal.stdout()
    console.print(tables(reports))
    for report in reports:
        for heading, found in paper_tables(report, compared.ablations).items():
            console.print(heading, style="bold", markup=False)
            console.print(table(found))
    for note in notes(compared.left_out):
        console.print(note, style="dim", markup=False)


def _print_written(written: Sequence[Path]) -> None:
    typer.echo(f"written: {', '.join(map(str, written))}", err=True)
