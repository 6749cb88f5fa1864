"""``specdec bench``: strategies beside plain decoding and transformers, interleaved."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from specdec.cli import bench_options as bench_flags
from specdec.cli import generate_options as flags
from specdec.cli.bench_files import check_files, show, write_files
from specdec.cli.bench_runs import measure, warn_of_noise
from specdec.cli.compared_engines import DEFAULT_STRATEGIES
from specdec.cli.failures import INTERRUPTED, USAGE, quiet_libraries, reported
from specdec.cli.flag_values import (
    bench_fields,
    check_one_row,
    numbers,
    prompt_sets,
    set_threads,
)
from specdec.cli.given_options import given_options
from specdec.cli.output_files import STDOUT, check_apart
from specdec.cli.request_from_flags import LOADING
from specdec.errors import OptionError

if TYPE_CHECKING:
    from specdec.bench.benchmark_report import Report


@reported
def bench(
    context: typer.Context,
    model: flags.Model = None,
    strategies: bench_flags.Strategies = DEFAULT_STRATEGIES,
    option: bench_flags.PartOptions = None,
    inflate: bench_flags.Inflate = None,
    data: bench_flags.Data = None,
    prompts: bench_flags.Prompts = 8,
    turns: bench_flags.Turns = None,
    length: bench_flags.Length = None,
    batch_size: bench_flags.BatchSize = 1,
    max_new_tokens: bench_flags.MaxNewTokens = 64,
    repetitions: bench_flags.Repetitions = 3,
    temperature: bench_flags.Temperature = "0",
    set_: flags.Fields = None,
    seed: bench_flags.Seed = 0,
    transformers: bench_flags.Transformers = True,
    prompt_lookup: bench_flags.PromptLookup = False,
    log: bench_flags.Log = None,
    dtype: flags.Dtype = None,
    device: flags.Device = None,
    device_map: flags.DeviceMap = None,
    pack: flags.Pack = False,
    compile: flags.Compile = False,
    trust_remote_code: flags.TrustRemoteCode = False,
    threads: flags.Threads = None,
    json: bench_flags.Json = None,
    csv: bench_flags.Csv = None,
    markdown: bench_flags.Markdown = None,
    plot: bench_flags.Plot = None,
    debug: flags.Debug = False,
) -> None:
    """Measure strategies beside [bold]plain decoding[/bold] and transformers' own generate.

    All run on one loaded model, interleaved, on every prompt and several times over. Tables show
    tau, speed and its spread, whether the tokens are plain decoding's, the work and where the time
    goes. Plain decoding runs twice: how far it is from itself is the noise of the machine. tau does
    not depend on the machine, except that of auto, lookup and suffix, which size their trees by
    measured costs. Ctrl-C shows what has been measured.

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

    specdec bench --temperature 0,1 --json both.json

    specdec bench paper --out results/  [dim]# every method, tables and figures[/dim]
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    from specdec.bench.contenders import ContenderError
    from specdec.bench.setting_names import at_settings

    files = {"--json": json, "--csv": csv, "--markdown": markdown, "--plot": plot}
    check_files([*files.items(), ("--log", log)])
    temperatures = numbers("--temperature", temperature, float, "0,1")
    logs = [("--log", at_settings(log, each, batch_size)) for each in temperatures if log]
    check_apart([*files.items(), *logs, ("--data", data)])
    check_files(logs)
    loading = {name: context.params[name] for name in LOADING}
    decoding = {
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "batch_size": batch_size,
        "repetitions": repetitions,
        "fields": bench_fields(set_),
    }
    reports = _measure(
        strategies=strategies,
        options=flags.assignments("-o", option),
        loading=loading,
        inflate=inflate,
        threads=threads,
        data=data,
        encoding={"count": prompts, "context": length, "turns": turns},
        decoding=decoding,
        temperatures=temperatures,
        baselines={"transformers": transformers, "prompt_lookup": prompt_lookup},
        log=log,
    )
    failure = reports[-1].failure
    try:
        try:
            show(reports, as_json=json == STDOUT)
            warn_of_noise(reports)
        finally:  # though nobody may read what is shown
            write_files(reports, files)
    except OptionError as error:
        raise ContenderError(f"{failure}; {error}") if failure else error from None
    if failure and json == STDOUT:
        raise typer.Exit(USAGE)  # the JSON says it
    if failure:
        raise ContenderError(f"{failure}; what was finished before is shown")
    if reports[-1].interrupted:
        raise typer.Exit(INTERRUPTED)


def _refuse_options(context: typer.Context) -> None:
    """Those of ``specdec bench`` itself say nothing to its subcommands."""
    given = given_options(context)
    if given:
        command = context.invoked_subcommand
        raise OptionError(
            f"{', '.join(given)} given before {command!r}: options of specdec bench {command} "
            "come behind it"
        )


def _measure(
    *,
    strategies: str,
    options: dict[str, Any],
    loading: dict[str, Any],
    inflate: str | None,
    threads: int | None,
    data: Path | None,
    encoding: dict[str, Any],
    decoding: dict[str, Any],
    temperatures: list[float],
    baselines: dict[str, bool],
    log: Path | None,
) -> list[Report]:
    """Load, read the prompts and run."""
    from specdec.bench import Settings, encode_sets
    from specdec.bench.baseline import TRANSFORMERS
    from specdec.bench.built_in_prompts import MIXED
    from specdec.cli import terminal
    from specdec.cli.compared_engines import choose_labelled, labels_of, make_engines
    from specdec.cli.strategy_choice import PLAIN
    from specdec.plugin.registry import Registry

    quiet_libraries()
    settings = Settings(**decoding)
    check_one_row("--prompt-lookup", baselines["prompt_lookup"], settings.batch_size)
    sets = prompt_sets(data, [MIXED])
    registry = Registry.load()
    labels = [each for each in labels_of(registry, strategies) if each not in (PLAIN, TRANSFORMERS)]
    choices = choose_labelled(registry, labels or [PLAIN], options)
    set_threads(threads)
    with tempfile.TemporaryDirectory() as heads:
        with terminal.working("loading the target model and its drafters"):
            engines = make_engines(registry, choices, loading, inflate, Path(heads))
        first = next(iter(engines.values()))
        encoded = encode_sets(sets, first, max_new_tokens=settings.max_new_tokens, **encoding)
        return measure(
            engines,
            encoded,
            settings,
            temperatures,
            transformers=baselines["transformers"],
            prompt_lookup=baselines["prompt_lookup"],
            log=log,
        )
