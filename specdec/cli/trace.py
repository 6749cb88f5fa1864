"""``specdec trace``: how a text came about, step by step, as a page that needs no network."""

from __future__ import annotations

from collections.abc import Callable

import typer

from specdec.cli import generate_options as flags
from specdec.cli.failures import INTERRUPTED, reported
from specdec.cli.generate_run import prepare
from specdec.cli.output_files import check_file, written
from specdec.cli.request_from_flags import request_from_flags
from specdec.plugin import DEFAULT_STRATEGY


@reported
def trace(
    context: typer.Context,
    prompt: flags.Prompt,
    html: flags.Html = None,
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
    set_: flags.Fields = None,
    json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Write an answer, and show how it came about: [bold]step by step[/bold].

    The text streams as it is committed, and a table shows what each step drafted, expected and got.
    With --html it is a page too, on which the text is coloured by how many draft tokens each step
    accepted, and every step shows its draft tree, the accepted path, what was rejected, what the
    target wanted instead, and its time by phase. --json prints the whole record. Ctrl-C keeps what
    has been written.

    [bold]Examples[/bold]

    specdec trace "Tell me a story about a fox" --html out.html

    specdec trace "Once upon a time" --raw --strategy eagle2 --temperature 1 --html out.html

    specdec trace "Why is the sky blue?" --json > trace.json
    """
    from specdec.cli import terminal
    from specdec.cli.explain import steps_as_table

    if html:
        check_file("--html", html, "out.html")
    request = request_from_flags(context.params, [strategy], repeat=1, plain=False)
    with terminal.working("loading the target model and its drafter"):
        prepared = prepare(request)
    text_output = _TextOutput(terminal.write, silent=json)
    report = prepared.run(text_output, trace=True)
    assert report.trace is not None
    if html:
        with written("--html", html):
            html.write_text(report.trace.html(), encoding="utf-8")
    text_output.check()
    if json:
        terminal.print_json(report.trace.model_dump(mode="json"))
    else:
        terminal.stdout().print(steps_as_table(report.trace))
        if html:
            terminal.stdout().print(f"the page: {html}", markup=False, soft_wrap=True)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)


class _TextOutput:
    """The text on stdout, for as long as somebody reads it: without a reader the page is made all
    the same."""

    def __init__(self, write: Callable[[str], None], *, silent: bool) -> None:
        self._write, self._silent = write, silent
        self._broken: BrokenPipeError | None = None

    def __call__(self, text: str) -> None:
        if self._silent or self._broken:
            return
        try:
            self._write(text)
        except BrokenPipeError as error:
            self._broken = error

    def check(self) -> None:
        """Raise the BrokenPipeError that was put off."""
        if self._broken:
            raise self._broken
