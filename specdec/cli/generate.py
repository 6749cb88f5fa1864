"""``specdec generate``: stream an answer and measure it beside plain decoding."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from specdec.cli import generate_options as flags
from specdec.cli.failures import INTERRUPTED, reported
from specdec.cli.first_rank import first_rank_writes
from specdec.cli.generate_run import prepare
from specdec.cli.given_options import given_options
from specdec.cli.request_from_flags import request_from_flags
from specdec.errors import OptionError
from specdec.plugin import DEFAULT_STRATEGY


@reported
def generate(
    context: typer.Context,
    prompt: flags.Prompt,
    model: flags.Model = None,
    strategy: flags.Strategy = DEFAULT_STRATEGY,
    drafter: flags.Drafter = None,
    policy: flags.Policy = None,
    verifier: flags.Verifier = None,
    acceptor: flags.Acceptor = None,
    option: flags.PartOptions = None,
    dtype: flags.Dtype = None,
    device: flags.Device = None,
    device_map: flags.DeviceMap = None,
    tensor_parallel: flags.TensorParallel = False,
    pack: flags.Pack = False,
    compile: flags.Compile = False,
    trust_remote_code: flags.TrustRemoteCode = False,
    threads: flags.Threads = None,
    raw: flags.Raw = False,
    max_new_tokens: flags.MaxNewTokens = None,
    temperature: flags.Temperature = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    min_p: flags.MinP = None,
    repetition_penalty: flags.RepetitionPenalty = None,
    stop: flags.Stop = None,
    special_tokens: flags.SpecialTokens = False,
    seed: flags.Seed = None,
    n: flags.Samples = None,
    logprobs: flags.Logprobs = None,
    set_: flags.Fields = None,
    compare: flags.Compare = None,
    repeat: flags.Repeat = 3,
    plain: flags.Plain = True,
    explain: flags.Explain = False,
    json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Write an answer, and measure it beside [bold]plain decoding[/bold] on the same model.

    The text streams as it is committed. Then the strategy and plain decoding run in turns with the
    same settings and seed, and a table shows tau, the acceptance by depth, the speed of both and
    whether the tokens are identical. Ctrl-C keeps what has been written.

    [bold]Examples[/bold]

    specdec generate "Tell me a story about a fox"

    specdec generate "Once upon a time" --raw --temperature 1 --seed 7

    specdec generate "Why is the sky blue?" --compare eagle2,static_tree,chain

    specdec generate "Why is the sky blue?" --explain

    specdec generate "Once upon a time" --raw --temperature 1 --n 4 --logprobs 3

    specdec generate "Hi" -o policy.budget=25 -o policy.depth=4 --max-new-tokens 64

    specdec generate "Hi" -m meta-llama/Llama-2-7b-chat-hf --drafter yuhuili/EAGLE-llama2-chat-7B

    echo "Tell me a joke" | specdec generate - --json
    """
    from specdec.cli import terminal
    from specdec.cli.explain import steps_as_json, steps_as_table
    from specdec.cli.logprobs import logprobs_as_table

    with first_rank_writes(tensor_parallel=tensor_parallel):
        names = [strategy] if compare is None else [name.strip() for name in compare.split(",")]
        _check_together(context, names)
        request = request_from_flags(context.params, names, repeat=repeat, plain=plain)
        with terminal.working("loading the target model and its drafter"):
            prepared = prepare(request)
        report = prepared.run((lambda _: None) if json else terminal.write, trace=explain)
        if json:
            payload = report.as_json(compare=compare is not None)
            if report.trace:
                payload["explain"] = steps_as_json(report.trace)
            terminal.print_json(payload)
        else:
            for result in report.contenders[0].results if logprobs is not None else ():
                table = logprobs_as_table(result, report.contenders[0].engine.tokenizer)
                terminal.stdout().print(table)
            if report.trace:
                terminal.stdout().print(steps_as_table(report.trace))
            terminal.stdout().print(report.as_comparison() if compare else report.as_table())
        if report.interrupted:
            raise typer.Exit(INTERRUPTED)


def _check_together(context: typer.Context, names: Sequence[str]) -> None:
    """Refuse flags that would say nothing beside others.

    Args:
        names: of the strategies that run.

    Raises:
        OptionError: there are such flags.
    """
    asked, given = context.params, given_options(context)
    if asked["tensor_parallel"] and asked["prompt"] == "-":
        raise OptionError(
            "--tensor-parallel: the processes would share the standard input that the prompt - "
            "reads; give the prompt itself"
        )
    if asked["compare"] is not None and asked["explain"]:
        raise OptionError(
            "--explain shows the steps of one strategy, --compare runs several: give --strategy "
            "NAME --explain, once for each"
        )
    if asked["compare"] is not None and "--strategy" in given:
        raise OptionError(
            f"--compare {asked['compare']} says which strategies run, and --strategy "
            f"{asked['strategy']} says another: put it among those of --compare, or leave it out"
        )
    if len(names) == 1 and not asked["plain"] and asked["repeat"] > 1 and "--repeat" in given:
        raise OptionError(
            f"--repeat {asked['repeat']} --no-plain: a strategy beside nothing runs once, as its "
            "text is written; leave out --repeat, or --no-plain"
        )
