"""Running strategies beside each other on one loaded model, and timing them fairly."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdec.engine import Engine
    from specdec.results import GenerationResult

WARM_UP_TOKENS = 8


@dataclass
class ContenderRuns:
    """One strategy's runs.

    Attributes:
        engine: the strategy on the shared target model.
        result: of its first run.
        speeds: tokens per second of its measured runs.
    """

    engine: Engine
    result: GenerationResult | None = None
    speeds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.engine.strategy.name

    @property
    def tokens_per_second(self) -> float | None:
        """The median of the measured runs, else of the first run; None before it."""
        if self.speeds:
            return statistics.median(self.speeds)
        return self.result.stats.tokens_per_second if self.result else None


@dataclass(frozen=True)
class Streamed:
    """How a streamed run went.

    Attributes:
        prompt_ids: token ids of the prompt.
        greedy: whether the settings mean greedy decoding.
        interrupted: whether Ctrl-C ended it.
    """

    prompt_ids: list[int]
    greedy: bool
    interrupted: bool


def warm_up(contenders: Sequence[ContenderRuns], prompt: Any, settings: Mapping[str, Any]) -> None:
    """A few tokens of every contender, not measured."""
    for contender in contenders:
        contender.engine.generate(prompt, **{**settings, "max_new_tokens": WARM_UP_TOKENS})


def stream(
    contender: ContenderRuns, prompt: Any, settings: Mapping[str, Any], write: Callable[[str], None]
) -> Streamed:
    """Run a contender once and write its text as it is committed; Ctrl-C ends it early."""
    from specdec.streaming import TextStream

    generation = contender.engine.session().start(prompt, **settings)
    text = TextStream(generation, contender.engine.tokenizer)
    prompt_ids: list[int] = generation.state.tokens[0, : generation.state.host_lengths[0]].tolist()
    written = 0
    interrupted = False
    try:
        for piece in text:
            write(piece)
            written += len(piece)
    except KeyboardInterrupt:
        interrupted = True
    text.close()
    contender.result = text.result
    write((contender.result.text or "")[written:])
    return Streamed(prompt_ids, generation.request.sampling.greedy, interrupted)


def measure(
    contenders: Sequence[ContenderRuns],
    prompt: Any,
    settings: Mapping[str, Any],
    repeat: int,
    tell: Callable[[str], None],
) -> None:
    """Run all contenders in turns ``repeat`` times, every other round in reverse order."""
    for turn in range(repeat):
        for contender in contenders if turn % 2 == 0 else contenders[::-1]:
            tell(f"measuring {contender.name}, run {turn + 1} of {repeat}")
            result = contender.engine.generate(prompt, **settings)
            assert not isinstance(result, list)
            contender.speeds.append(result.stats.tokens_per_second)
            contender.result = contender.result or result
