"""The runs of a benchmark: all contenders in turns on every batch, several times over."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch

from specdec.bench.contenders import Contender
from specdec.bench.differences import first_difference
from specdec.bench.peak_memory import PeakMemory
from specdec.bench.prompt_sets import Prompt
from specdec.bench.run_log import RunLog, Timed, Turn
from specdec.bench.run_statistics import Run
from specdec.bench.settings import Settings

Progress = Callable[[int, int, str], None]


@dataclass
class Runs:
    """What has been measured.

    Attributes:
        batches: of prompts, each of one set.
        by_label: the runs of every contender.
        parted: for every contender the prompts whose tokens are not the baseline's, each with both
            texts as (ours, the baseline's).
        interrupted: whether Ctrl-C ended it.
    """

    batches: list[list[Prompt]]
    by_label: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    parted: dict[str, dict[Prompt, tuple[list[int], list[int]]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    interrupted: bool = False


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
    return [batch for turn in zip_longest(*by_set) for batch in turn if batch is not None]


def interleave(
    contenders: Sequence[Contender],
    batches: list[list[Prompt]],
    settings: Settings,
    memory: PeakMemory,
    device: torch.device,
    progress: Progress,
    log: RunLog | None = None,
) -> Runs:
    """Warm up, then run.

    For every batch each contender decodes once, in an order that rotates and in every other
    repetition runs backwards, so that whatever else the machine does slows all of them alike.
    The first contender is the baseline whose tokens the others' are compared with. To warm up each
    decodes the longest batch.

    With a log, turns that are in it are taken from it.

    Ctrl-C ends it: what is kept are whole repetitions, or whole turns of the first one.
    """
    runs = Runs(batches)
    total = (len(batches) * settings.repetitions + 1) * len(contenders)
    done = 0

    def turn(batch: list[Prompt], order: Sequence[Contender], what: str) -> Turn:
        nonlocal done
        outputs = {}
        for contender in order:
            progress(done, total, f"{what}: {contender.label}")
            outputs[contender.label] = timed(contender, batch, settings, memory, device)
            done += 1
        return outputs

    try:
        turn(max(batches, key=_tokens), contenders, "warming up")
        for repetition in range(settings.repetitions):
            for index, batch in enumerate(batches):
                shift = (repetition + index) % len(contenders)
                order = [*contenders[shift:], *contenders[:shift]]
                if log and (known := log.find(repetition, index)):
                    outputs, done = known, done + len(contenders)
                else:
                    outputs = turn(batch, order[:: (-1) ** repetition], f"run {repetition + 1}")
                    if log:
                        log.add(repetition, index, outputs)
                _keep(runs, repetition, index, outputs, contenders)
    except KeyboardInterrupt:
        runs.interrupted = True
        _drop_what_is_unfinished(runs)
    progress(total, total, "")
    return runs


def timed(
    contender: Contender,
    batch: list[Prompt],
    settings: Settings,
    memory: PeakMemory,
    device: torch.device,
) -> Timed:
    """One contender on one batch."""
    rows = [prompt.token_ids for prompt in batch]
    seeds = [settings.seed + prompt.index for prompt in batch]
    memory.reset()
    _wait_for(device)
    started = time.perf_counter()
    decoded = contender.decode(rows, seeds, settings)
    _wait_for(device)
    return Timed(decoded, time.perf_counter() - started, memory.read())


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _keep(
    runs: Runs,
    repetition: int,
    index: int,
    outputs: Turn,
    contenders: Sequence[Contender],
) -> None:
    base = outputs[contenders[0].label].decoded.tokens
    for label, one in outputs.items():
        decoded = one.decoded
        runs.by_label[label].append(
            Run(
                repetition,
                index,
                one.seconds,
                sum(map(len, decoded.tokens)),
                decoded.stats,
                decoded.steps,
                one.peak_memory,
            )
        )
        for prompt, ours, theirs in zip(runs.batches[index], decoded.tokens, base, strict=True):
            if first_difference(ours, theirs) is not None:
                runs.parted[label].setdefault(prompt, (ours, theirs))


def _drop_what_is_unfinished(runs: Runs) -> None:
    """Keep turns that every contender finished, and whole repetitions if there is one."""
    turns = [{run.turn for run in own} for own in runs.by_label.values()]
    finished = set.intersection(*turns) if turns else set()
    whole = {
        repetition
        for repetition, _ in finished
        if sum(r == repetition for r, _ in finished) == len(runs.batches)
    }
    for own in runs.by_label.values():
        own[:] = [r for r in own if r.turn in finished and (r.repetition in whole or not whole)]


def _tokens(batch: list[Prompt]) -> int:
    return sum(len(prompt.token_ids) for prompt in batch)
