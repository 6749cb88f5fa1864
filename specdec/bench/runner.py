"""The runs of a benchmark: all contenders in turn on every batch, several times over."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from specdec.bench.chat_turns import Answers, ChatTurns, parting
from specdec.bench.contenders import Contender, ContenderError, Decoded
from specdec.bench.draft_outcomes import DraftOutcomes
from specdec.bench.peak_memory import PeakMemory
from specdec.bench.prompt_sets import Prompt
from specdec.bench.run_log import Round, RunLog, Timed
from specdec.bench.run_statistics import Run
from specdec.bench.settings import Settings
from specdec.decoding.interfaces import KeepsTexts

Progress = Callable[[int, int, str], None]


@dataclass
class Runs:
    """What has been measured.

    Attributes:
        batches: of prompts, each of one set.
        by_label: the runs of every contender.
        parted: for every contender the prompts whose tokens are not the baseline's, each with the
            answers of both as (ours, the baseline's).
        interrupted: whether Ctrl-C or a contender that failed ended it.
        failure: of such a contender.
    """

    batches: list[list[Prompt]]
    by_label: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    parted: dict[str, dict[Prompt, tuple[Answers, Answers]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    interrupted: bool = False
    failure: str | None = None


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

    Contenders that keep texts (:class:`~specdec.decoding.interfaces.KeepsTexts`) forget them before
    every repetition: they draft from answers to other prompts, not from their own to the same one.

    With a log, rounds that are in it are taken from it.

    Ctrl-C, or a contender that fails, ends it: what is kept are whole repetitions, or whole rounds
    of the first one.
    """
    runs = Runs(batches)
    total = (len(batches) * settings.repetitions + 1) * len(contenders)
    done = 0

    def play(batch: list[Prompt], order: Sequence[Contender], what: str) -> Round:
        nonlocal done
        outputs = {}
        for contender in order:
            progress(done, total, f"{what}: {contender.label}")
            outputs[contender.label] = timed(contender, batch, settings, memory, turns)
            done += 1
        return outputs

    try:
        rounds = itertools.product(range(settings.repetitions), range(len(batches)))
        if log is None or not all(log.find(*each) for each in rounds):
            play(max(batches, key=_tokens), contenders, "warming up")
        for repetition in range(settings.repetitions):
            for contender in contenders:
                if isinstance(contender, KeepsTexts):
                    contender.forget_texts()
            for index, batch in enumerate(batches):
                shift = (repetition + index) % len(contenders)
                order = [*contenders[shift:], *contenders[:shift]]
                if log and (known := log.find(repetition, index)):
                    outputs, done = known, done + len(contenders)
                else:
                    outputs = play(batch, order[:: (-1) ** repetition], f"run {repetition + 1}")
                    if log:
                        log.add(repetition, index, outputs)
                _keep(runs, repetition, index, outputs, contenders)
    except (KeyboardInterrupt, ContenderError) as ending:
        runs.interrupted = True
        runs.failure = str(ending) or None
        _drop_what_is_unfinished(runs)
    progress(total, total, "")
    return runs


def timed(
    contender: Contender,
    batch: list[Prompt],
    settings: Settings,
    memory: PeakMemory,
    turns: ChatTurns,
) -> Timed:
    """One contender on one batch, turn by turn; only its calls are timed."""
    device = turns.engine.target.device
    answers: list[Answers] = [[] for _ in batch]
    found: list[Decoded] = []
    outcomes: list[DraftOutcomes | None] = []
    seconds = 0.0
    memory.reset()
    while rows := {
        place: ids
        for place, prompt in enumerate(batch)
        if (ids := turns.next_prompt(prompt, answers[place])) is not None
    }:
        seeds = [settings.seed + batch[place].index for place in rows]
        _wait_for(device)
        started = time.perf_counter()
        decoded = contender.decode(list(rows.values()), seeds, settings)
        _wait_for(device)
        elapsed = time.perf_counter() - started
        seconds += elapsed if decoded.seconds is None else decoded.seconds
        outcomes.append(DraftOutcomes.of(decoded.trees))
        found.append(replace(decoded, trees=()))
        for place, tokens in zip(rows, decoded.tokens, strict=True):
            answers[place].append(tokens)
    stats = tuple(each.stats for each in found if each.stats is not None)
    steps = [each.steps for each in found if each.steps is not None]
    return Timed(
        answers,
        seconds,
        stats,
        sum(steps) if steps else None,
        0 if any(each.seconds is not None for each in found) else memory.read(),
        DraftOutcomes.summed(outcomes),
    )


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
            if parting(ours, theirs) is not None:
                runs.parted[label].setdefault(prompt, (ours, theirs))


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
