"""One ``specdec generate``: load, warm up, stream, measure beside plain decoding, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from specdec.cli import identity, runs, terminal
from specdec.cli.failures import quiet_libraries
from specdec.cli.flag_values import set_threads
from specdec.cli.generate_report import GenerateReport
from specdec.cli.runs import ContenderRuns
from specdec.cli.strategy_choice import PLAIN, choose

if TYPE_CHECKING:
    from specdec.engine import Engine


@dataclass(frozen=True)
class GenerateRequest:
    """What was asked for.

    Attributes:
        prompt: the text.
        raw: continue it as it stands rather than through the chat template.
        strategies: names; the first one's text is shown.
        swaps: names of other parts by role.
        options: values by ``role.option`` or ``strategy.role.option``.
        settings: arguments of ``Engine.generate``.
        loading: arguments of the ``Engine`` besides its parts: model, dtype, pack and the like.
        threads: of the CPU.
        repeat: measured runs of each strategy.
        plain: whether to compare with plain decoding.
    """

    prompt: str
    raw: bool
    strategies: Sequence[str]
    swaps: Mapping[str, str | None]
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    loading: Mapping[str, Any]
    threads: int | None
    repeat: int
    plain: bool


@dataclass(frozen=True)
class GenerateRun:
    """Everything loaded and warm.

    Attributes:
        request: what was asked for.
        prompt: as ``Engine.generate`` takes it.
        contenders: what runs; the first one's text is shown.
        plain: the contender of plain decoding, one of ``contenders``; None without the comparison.
    """

    request: GenerateRequest
    prompt: Any
    contenders: Sequence[ContenderRuns]
    plain: ContenderRuns | None

    def run(self, write: Callable[[str], None], *, trace: bool = False) -> GenerateReport:
        """Stream the first contender's text to ``write``, then measure all of them.

        With ``trace`` the streamed run's result has one.

        Ctrl-C ends the stream or the measuring; the report has what there is.
        """
        settings, repeat = self.request.settings, self.request.repeat
        first = self.contenders[0]
        streamed = runs.stream(first, self.prompt, {**settings, "trace": trace}, write)
        write("\n")  # a spinner would wipe the line that it starts on
        interrupted = streamed.interrupted
        if not interrupted and (self.plain or len(self.contenders) > 1):
            try:
                with terminal.working("measuring") as tell:
                    bare = {name: settings[name] for name in settings if name != "logprobs"}
                    runs.measure(self.contenders, self.prompt, bare, repeat, tell)
            except KeyboardInterrupt:
                interrupted = True
        return GenerateReport(
            contenders=self.contenders,
            plain=self.plain,
            identities=[
                identity.compare(contender, self.plain, streamed) for contender in self.contenders
            ],
            greedy=streamed.greedy,
            interrupted=interrupted,
            seed=settings["seed"],
            settings={**self._settings(), "greedy": streamed.greedy},
        )

    def _settings(self) -> dict[str, Any]:
        """For the record."""
        from specdec.models.placement import places

        target = self.contenders[0].engine.target
        return {
            **self.request.settings,
            "prompt": "text" if isinstance(self.prompt, str) else "chat",
            "dtype": str(target.dtype).removeprefix("torch."),
            "device": places(target.model, target.device),
            "tensor_parallel": self.request.loading["tensor_parallel"],
            "pack": self.contenders[0].engine.acceleration.pack,
            "compile": self.contenders[0].engine.acceleration.compile,
            "threads": self.request.threads,
            "repeat": self.request.repeat,
            "options": {
                contender.name: contender.engine.selection.options for contender in self.contenders
            },
        }


def prepare(request: GenerateRequest) -> GenerateRun:
    """Load the target model once, make an engine for every strategy and warm them up.

    Raises:
        SpecdecError: names or values that are not allowed, a model that cannot be loaded.
    """
    from specdec.plugin.registry import Registry

    quiet_libraries()
    set_threads(request.threads)
    choices = choose(Registry.load(), request.strategies, request.swaps, request.options)
    engines = _engines([choice.arguments() for choice in choices], request.loading)
    drawn = engines[0].generation_setup().decided(lambda: request.settings["seed"])
    request = replace(request, settings={**request.settings, "seed": drawn})
    contenders = [ContenderRuns(engine) for engine in engines]
    plain = None
    if request.plain:
        known = zip(choices, contenders, strict=True)
        plain = next((contender for choice, contender in known if choice.is_plain), None)
        if plain is None:
            plain = ContenderRuns(engines[0].with_strategy(PLAIN))
            contenders.append(plain)
    prompt: Any = request.prompt
    if not request.raw and getattr(engines[0].tokenizer, "chat_template", None):
        prompt = [{"role": "user", "content": request.prompt}]
    runs.warm_up(contenders, prompt, request.settings)
    return GenerateRun(request, prompt, contenders, plain)


def _engines(arguments: Sequence[dict[str, Any]], loading: Mapping[str, Any]) -> list[Engine]:
    """An engine for each of ``arguments``, all on one loaded model."""
    from specdec.engine import Engine

    first = Engine(**loading, **arguments[0])
    return [first, *(first.with_strategy(**more) for more in arguments[1:])]
