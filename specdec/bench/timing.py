"""``timed``: one contender on one batch of prompts, and what that took."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from specdec.bench.chat_turns import Answers, ChatTurns
from specdec.bench.contenders import Contender, Decoded
from specdec.bench.draft_outcomes import DraftOutcomes
from specdec.bench.peak_memory import PeakMemory
from specdec.bench.prompt_sets import Prompt
from specdec.bench.settings import Settings
from specdec.decoding.clock import wait_for
from specdec.decoding.metrics import Stats


@dataclass(frozen=True)
class Timed:
    """What one contender decoded in one round, and what that took.

    Attributes:
        answers: new tokens, eos included, by prompt and turn.
        seconds: wall-clock time of the calls, one for each turn.
        stats: of each call; empty from a peer that does not count.
        steps: of all calls; None from such a peer.
        peak_memory: in bytes; 0 of a peer in another process.
        outcomes: of the draft tokens; None without any, and from such a peer.
    """

    answers: list[list[list[int]]]
    seconds: float
    stats: tuple[Stats, ...]
    steps: int | None
    peak_memory: int
    outcomes: DraftOutcomes | None = None


def timed(
    contender: Contender,
    batch: list[Prompt],
    settings: Settings,
    memory: PeakMemory,
    turns: ChatTurns,
    copies: int = 0,
) -> Timed:
    """One contender on one batch, turn by turn; only its calls are timed.

    Args:
        copies: the last rows, which fill the batch up with prompts of others: what became of their
            draft tokens is not counted again.
    """
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
        wait_for(device)
        started = time.perf_counter()
        decoded = contender.decode(list(rows.values()), seeds, settings)
        wait_for(device)
        elapsed = time.perf_counter() - started
        seconds += elapsed if decoded.seconds is None else decoded.seconds
        own = {row for row, place in enumerate(rows) if place < len(batch) - copies}
        outcomes.append(DraftOutcomes.of(decoded.trees, own))
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
