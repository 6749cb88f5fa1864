"""The runs of a benchmark: all contenders in turn on every batch, several times over."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from specdec.bench.chat_turns import Answers, ChatTurns, first_difference_in_turns
from specdec.bench.contenders import Contender, ContenderError, StrategyContender
from specdec.bench.peak_memory import PeakMemory
from specdec.bench.prompt_sets import Prompt
from specdec.bench.run_log import Round, RunLog
from specdec.bench.run_statistics import Run
from specdec.bench.settings import Settings
from specdec.bench.timing import timed
from specdec.decoding.interfaces import KeepsTexts
from specdec.errors import OptionError, SpecdecError, first_line, out_of_memory

Progress = Callable[[int, int, str], None]

_LOG = logging.getLogger(__name__)


def check_progress(progress: object) -> None:
    """Refuse what cannot be told of the runs.

    Raises:
        OptionError: something that cannot be called, such as True.
    """
    if progress is not None and not callable(progress):
        raise OptionError(
            f"progress={progress!r:.80}: give a function of the runs that are done, the runs in "
            "all, and what runs now, or None"
        )


@dataclass
class Runs:
    """What has been measured.

    Attributes:
        batches: of prompts, each of one set.
        by_label: the runs of every contender.
        different: for every contender the prompts whose tokens are not the baseline's, each with
            the answers of both as (ours, the baseline's).
        interrupted: whether something ended it before its time.
        failure: of a contender or of the log, if that was it.
        ending: what ended it.
    """

    batches: list[list[Prompt]]
    by_label: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    different: dict[str, dict[Prompt, tuple[Answers, Answers]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    interrupted: bool = False
    failure: str | None = None
    ending: BaseException | None = None


def batches_of(prompts: Sequence[Prompt], size: int) -> list[list[Prompt]]:
    """Batches of ``size`` prompts of one set; the last one of a set is filled up from its start.

    Sets take turns, so that a run that is stopped has measured all of them.
    """
    sets: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        sets.setdefault(prompt.set, []).append(prompt)
    by_set = (
        [[own[(start + i) % len(own)] for i in range(size)] for start in range(0, len(own), size)]
        for own in sets.values()
    )
    return [batch for turn in itertools.zip_longest(*by_set) for batch in turn if batch is not None]


def interleave(
    contenders: Sequence[Contender],
    batches: list[list[Prompt]],
    settings: Settings,
    memory: PeakMemory,
    turns: ChatTurns,
    progress: Progress,
    log: RunLog | None = None,
) -> Runs:
    """Warm up, then run.

    A round is one batch, which each contender decodes once, in an order that rotates and in every
    other repetition runs backwards, so that whatever else the machine does slows all of them alike.
    The first contender is the baseline whose tokens the others' are compared with. To warm up each
    decodes the longest batch.

    Drafters that keep texts (:class:`~specdec.decoding.interfaces.KeepsTexts`) forget them before
    every repetition: they draft from answers to other prompts, not from their own to the same one.

    With a log, rounds that are in it are taken from it; beside such a drafter, which would not have
    their texts, those of whole repetitions alone.

    Ctrl-C, a contender that fails, or a log that cannot be written ends it: what is kept are whole
    repetitions, or whole rounds of the first one.
    """
    runs = Runs(batches)
    total = (len(batches) * settings.repetitions + 1) * len(contenders)
    copies = list(_copies(batches))
    with_texts = list(_keeping_texts(contenders))
    rounds = [
        [log.find(repetition, index) if log else None for index in range(len(batches))]
        for repetition in range(settings.repetitions)
    ]
    if with_texts:
        rounds = [own if all(own) else [None] * len(own) for own in rounds]
    known = all(map(all, rounds))
    # What is in the log is done before the first run, and so is the warm-up if nothing runs.
    done = (sum(map(bool, itertools.chain(*rounds))) + known) * len(contenders)

    def run_round(index: int, order: Sequence[Contender], what: str) -> Round:
        nonlocal done
        outputs = {}
        for contender in order:
            progress(done, total, f"{what}: {contender.label}")
            with _failing(contender):
                outputs[contender.label] = timed(
                    contender, batches[index], settings, memory, turns, copies[index]
                )
            done += 1
        return outputs

    try:
        if not known:
            longest = max(range(len(batches)), key=lambda index: _tokens(batches[index]))
            run_round(longest, contenders, "warming up")
        for repetition, logged in enumerate(rounds):
            for drafter in with_texts:
                drafter.forget_texts()
            for index in range(len(batches)):
                shift = (repetition + index) % len(contenders)
                order = [*contenders[shift:], *contenders[:shift]]
                outputs = logged[index]
                if outputs is None:
                    outputs = run_round(
                        index, order[:: (-1) ** repetition], f"run {repetition + 1}"
                    )
                    if log:
                        log.add(repetition, index, outputs)
                _keep(runs, repetition, index, outputs, contenders)
    except (KeyboardInterrupt, SpecdecError) as ending:
        runs.interrupted = True
        runs.failure, runs.ending = str(ending) or None, ending
        _drop_what_is_unfinished(runs)
    progress(done, total, "")
    return runs


@contextmanager
def _failing(contender: Contender) -> Iterator[None]:
    """Within, an error that a user can act on, or a lack of memory, is the contender's.

    Raises:
        ContenderError: there was one.
    """
    try:
        yield
    except ContenderError:
        raise
    except (SpecdecError, RuntimeError) as error:
        if not isinstance(error, SpecdecError) and not out_of_memory(error):
            raise
        _LOG.debug("%s failed", contender.label, exc_info=True)
        raise ContenderError(f"{contender.label}: {first_line(error).rstrip('.')}") from error


def _keeping_texts(contenders: Sequence[Contender]) -> Iterator[KeepsTexts]:
    """The drafters that do."""
    for each in contenders:
        drafter = each.engine.parts.drafter if isinstance(each, StrategyContender) else None
        if isinstance(drafter, KeepsTexts) and drafter.keeps_texts:
            yield drafter


def _copies(batches: list[list[Prompt]]) -> Iterator[int]:
    """How many rows of each batch are there to fill it up."""
    seen: set[Prompt] = set()
    for batch in batches:
        yield len(batch) - len({*batch} - seen)
        seen.update(batch)


def _keep(
    runs: Runs,
    repetition: int,
    index: int,
    outputs: Round,
    contenders: Sequence[Contender],
) -> None:
    base = outputs[contenders[0].label].answers
    for label, one in outputs.items():
        runs.by_label[label].append(
            Run(
                repetition,
                index,
                one.seconds,
                sum(len(tokens) for answers in one.answers for tokens in answers),
                one.stats,
                one.steps,
                one.peak_memory,
                one.outcomes,
            )
        )
        for prompt, ours, theirs in zip(runs.batches[index], one.answers, base, strict=True):
            if first_difference_in_turns(ours, theirs) is not None:
                runs.different[label].setdefault(prompt, (ours, theirs))


def _drop_what_is_unfinished(runs: Runs) -> None:
    """Keep rounds that every contender finished, and whole repetitions if there is one."""
    rounds = [{run.round for run in own} for own in runs.by_label.values()]
    finished = set.intersection(*rounds) if rounds else set()
    whole = {
        repetition
        for repetition, _ in finished
        if sum(r == repetition for r, _ in finished) == len(runs.batches)
    }
    for own in runs.by_label.values():
        own[:] = [r for r in own if r.round in finished and (r.repetition in whole or not whole)]


def _tokens(batch: list[Prompt]) -> int:
    return sum(len(prompt.token_ids) for prompt in batch)
