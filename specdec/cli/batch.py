"""``specdec batch``: a file of prompts to a file of answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from specdec.cli import batch_options as own
from specdec.cli import generate_options as flags
from specdec.cli.failures import quiet_libraries, reported
from specdec.cli.flag_values import set_threads
from specdec.cli.output_files import check_named
from specdec.cli.request_from_flags import LOADING, parts_from_flags, settings_from_flags
from specdec.plugin import DEFAULT_STRATEGY

if TYPE_CHECKING:
    from specdec.jobs.summary import JobSummary


@reported
def batch(
    context: typer.Context,
    prompts: own.Prompts,
    out: own.Out,
    model: flags.Model = None,
    strategy: flags.Strategy = DEFAULT_STRATEGY,
    drafter: flags.Drafter = None,
    policy: flags.Policy = None,
    verifier: flags.Verifier = None,
    acceptor: flags.Acceptor = None,
    option: flags.PartOptions = None,
    plugin: flags.Plugin = None,
    dtype: flags.Dtype = None,
    device: flags.Device = None,
    device_map: flags.DeviceMap = None,
    pack: flags.Pack = False,
    compile: flags.Compile = False,
    trust_remote_code: flags.TrustRemoteCode = False,
    threads: flags.Threads = None,
    chat: own.Chat = False,
    keep: own.Keep = None,
    token_ids: own.TokenIds = False,
    max_new_tokens: flags.MaxNewTokens = None,
    temperature: flags.Temperature = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    min_p: flags.MinP = None,
    repetition_penalty: flags.RepetitionPenalty = None,
    stop: flags.Stop = None,
    special_tokens: flags.SpecialTokens = False,
    seed: own.Seed = 0,
    set_: flags.Fields = None,
    batch_size: own.BatchSize = 32,
    max_batch_tokens: own.MaxBatchTokens = 50_000,
    window: own.Window = 1024,
    quiet: own.Quiet = False,
    json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Answer a file of prompts: a JSON object a line in, its answer a line out, in the same order.

    A row has a [cyan]prompt[/cyan] (text to go on with, or token ids) or the
    [cyan]messages[/cyan] of a chat, and any generation settings of its own; what it leaves out is
    taken from the flags. An answer has the row's index, its id, text, finish_reason, prompt_tokens
    and new_tokens. A bad row gets an [cyan]error[/cyan] that says what is wrong, and the others are
    answered all the same.

    Killed or stopped by Ctrl-C, [bold]the same command goes on[/bold] from the last batch that is
    on disk (OUT.JSONL.job); OUT.JSONL appears when all rows are answered, and is the file that an
    undisturbed run writes. Once it is there, the same command does nothing.

    Rows of like length are decoded together, those of different sampling settings apart: few
    different settings make fast jobs. The text of a row does not depend on the others.

    [bold]A file of prompts[/bold]

    {"id": "a", "prompt": "Once upon a time", "max_new_tokens": 40}

    {"id": "b", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0.8, "seed": 7}

    {"id": "c", "prompt": "def add(a, b):", "stop": ["def "]}

    [bold]Examples[/bold]

    specdec batch in.jsonl out.jsonl --max-new-tokens 200

    specdec batch questions.jsonl answers.jsonl --chat --keep category --temperature 0

    specdec batch in.jsonl out.jsonl -m org/model --drafter org/head --batch-size 64 --json
    """
    from specdec.cli import terminal
    from specdec.cli.plugin_file import load_plugin
    from specdec.cli.strategy_choice import choose
    from specdec.plugin.registry import Registry

    check_named("OUT.JSONL", out, "answers.jsonl")
    given = context.params
    settings = settings_from_flags(given)
    plugins = [load_plugin(path) for path in plugin or ()]
    swaps, options = parts_from_flags(given)
    (choice,) = choose(Registry.load(plugins), [strategy], swaps, options)
    options_of_job = {
        "settings": settings,
        "seed": seed,
        "chat": chat,
        "keep": tuple(keep or ()),
        "token_ids": token_ids,
        "batch_size": batch_size,
        "max_batch_tokens": max_batch_tokens,
        "window": window,
    }
    with terminal.working("loading the target model and its drafter"):
        from specdec.engine import Engine
        from specdec.jobs import run_job
        from specdec.jobs.job import checked_files
        from specdec.jobs.options import make_job_options

        checked_files(prompts, out, make_job_options(options_of_job))
        quiet_libraries()
        set_threads(threads)
        loading: dict[str, Any] = {name: given[name] for name in LOADING}
        engine = Engine(**loading, **choice.arguments(), plugins=plugins)
    try:
        summary = run_job(engine, prompts, out, progress=not (quiet or json), **options_of_job)
    except KeyboardInterrupt:
        if not json:
            typer.echo("stopped: the same command goes on from here", err=True)
        raise
    _tell(summary, json)


def _tell(summary: JobSummary, json: bool) -> None:
    from specdec.cli import terminal

    if json:
        return terminal.print_json(asdict(summary))
    endings = ", ".join(f"{count:,} {reason}" for reason, count in summary.endings.items())
    rows: list[tuple[str, Any]] = [
        ("answers", summary.out),
        ("rows", f"{summary.rows:,}" + (f" ({endings})" if endings else "")),
        ("errors", f"{summary.errors:,}"),
        ("answered before", f"{summary.resumed:,}"),
        ("tokens", f"{summary.prompt_tokens:,} read, {summary.new_tokens:,} written"),
        ("tau", f"{summary.tau:.2f} tokens per target forward"),
        ("decoding", f"{summary.seconds:,.1f} s, {summary.tokens_per_second:,.1f} tokens/s"),
        ("model", f"{summary.model}, {summary.strategy}"),
    ]
    notes = [f"{summary.out}.job has these figures, and tells the same command that all is done"]
    terminal.stdout().print(terminal.pairs(rows, notes=notes))
