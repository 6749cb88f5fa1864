"""Running strategies beside each other on one loaded model, and timing them fairly."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdec.decoding.metrics import Stats
    from specdec.engine import Engine
    from specdec.results import GenerationResult

WARM_UP_TOKENS = 8


@dataclass
class ContenderRuns:
    """One strategy's runs.

    Attributes:
        engine: the strategy on the shared target model.
        result: of its first run; the first text's where several were asked for.
        speeds: tokens per second of its measured runs.
        others: the results of the further texts.
    """

    engine: Engine
    result: GenerationResult | None = None
    speeds: list[float] = field(default_factory=list)
    others: list[GenerationResult] = field(default_factory=list)

    def keep(self, results: Sequence[GenerationResult]) -> None:
        """Take the results of the first run."""
        if self.result is None:
            self.result, *self.others = results

    @property
    def results(self) -> list[GenerationResult]:
        """Of all texts of the first run; none before it."""
        return [] if self.result is None else [self.result, *self.others]

    @property
    def stats(self) -> Stats | None:
        """Of the first run, its texts added up; None before it."""
        from specdec.decoding.metrics import added_up

        return added_up([each.stats for each in self.results]) if self.results else None

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.engine.strategy.name

    @property
    def tokens_per_second(self) -> float | None:
        """The median of the measured runs, else of the first run; None before it."""
        if self.speeds:
            return statistics.median(self.speeds)
        return self.stats.tokens_per_second if self.stats else None


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
    from specdec.streaming import BatchStream

    generation = contender.engine.start(prompt, **settings)
    text = BatchStream(generation, contender.engine.tokenizer)
    prompt_ids: list[int] = generation.request.rows[0]
    texts = len(generation.request.rows)
    if texts > 1:
        write(f"--- 1 of {texts} ---\n")
    written = 0
    interrupted = False
    try:
        for index, piece in text:
            if index == 0:
                write(piece)
                written += len(piece)
    except KeyboardInterrupt:
        interrupted = True
    text.close()
    contender.keep(text.results)
    first, *others = [each.text or "" for each in contender.results]
    write(first[written:])
    for number, other in enumerate(others, start=2):
        write(f"\n--- {number} of {texts} ---\n{other}")
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
            found = contender.engine.generate(prompt, **settings)
            results = found if isinstance(found, list) else [found]
            contender.speeds.append(sum(each.stats.tokens_per_second for each in results))
            contender.keep(results)
