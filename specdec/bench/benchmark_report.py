"""The report of a benchmark: figures by contender and prompt set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from specdec.bench.draft_outcomes import DraftOutcomes

ALL = "all"
PLAIN, AGAIN = "plain", "plain again"
QUIET = (0.95, 1.05)

Range = tuple[float, float]


@dataclass(frozen=True)
class Ratio:
    """Tokens per second beside a baseline.

    Within one repetition every batch of prompts gives a ratio, ours to the baseline's.

    Attributes:
        median: over repetitions, of the median over batches.
        over_prompts: quartiles over batches, of the median over repetitions; None with one batch.
        over_repetitions: the least and the largest of the medians over batches; None with one
            repetition.
        interval: of the median, 95 %, by bootstrap over batches; None with one batch.
    """

    median: float
    over_prompts: Range | None = None
    over_repetitions: Range | None = None
    interval: Range | None = None


@dataclass(frozen=True)
class Difference:
    """A prompt whose tokens are not plain decoding's.

    Attributes:
        set, prompt: which one.
        position: index of the first new token that differs.
        logit_gap: between the target's two best logits there; of greedy decoding only, and None
            too where memory did not suffice to find it.
        turn: of the conversation, whose answer it is in, from 0.
    """

    set: str
    prompt: int
    position: int
    logit_gap: float | None = None
    turn: int = 0


@dataclass(frozen=True)
class Result:
    """One contender, on one prompt set or on all of them.

    Counts and seconds are those of one repetition (seconds: the mean repetition); rows of a batch
    are added up.

    Attributes:
        strategy: its label.
        set: name of the prompt set, or ``"all"``.
        tau: tokens committed per target forward; None from a peer that does not count forwards.
        tau_interval: of tau, 95 %, by bootstrap over batches; None with one batch.
        tokens_per_second: the median over repetitions of new tokens per wall-clock second, the
            whole call included: set-up, prefill, decoding.
        tokens_per_second_range: the least and the largest; None with one repetition.
        speedup: beside ``plain``.
        beside_transformers: beside transformers' ``generate``; None without it.
        identical: whether all tokens are plain decoding's; None where they need not be.
        identical_reason: one line.
        identical_prompts: how many prompts gave plain decoding's tokens.
        prompts: how many there are.
        differences: the prompts where tokens differ, if they should not.
        new_tokens: tokens committed.
        steps: of the batches; None from a peer that does not count them.
        target_forwards: verifications in which a row took part; the prefill is not counted.
        draft_forwards: times the drafter was asked for a level (of a whole batch).
        alpha: acceptance rate by depth, from depth 1: of the rows that reached it and had a draft
            token there.
        tried: how many those were, by depth.
        outcomes: of the draft tokens, by confidence and by position; None without any.
        seconds: by phase, with ``"other"`` for what no phase covers and ``"total"``.
        peak_memory: in bytes; ``Report.memory`` says of what; 0 of a peer in another process.
        facts: parts, options, losslessness.
    """

    strategy: str
    set: str
    tau: float | None
    tau_interval: Range | None
    tokens_per_second: float
    tokens_per_second_range: Range | None
    speedup: Ratio
    beside_transformers: Ratio | None
    identical: bool | None
    identical_reason: str
    identical_prompts: int
    prompts: int
    differences: tuple[Difference, ...]
    new_tokens: int
    steps: int | None
    target_forwards: int | None
    draft_forwards: int | None
    alpha: tuple[float, ...]
    tried: tuple[int, ...]
    outcomes: DraftOutcomes | None
    seconds: dict[str, float]
    peak_memory: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def milliseconds_per_step(self) -> dict[str, float] | None:
        """By phase as ``seconds``; None without steps."""
        if not self.steps:
            return None
        return {phase: 1000 * s / self.steps for phase, s in self.seconds.items()}

    @property
    def share(self) -> dict[str, float]:
        """Of the total, by phase; empty where phases are not known."""
        total = self.seconds["total"]
        return {p: s / total for p, s in self.seconds.items() if p != "total"} if total else {}


@dataclass(frozen=True)
class Mean:
    """A mean over the prompt sets, each of which weighs the same.

    Attributes:
        value: the mean.
        interval: of it, 95 %, by bootstrap over the batches of each set; None where no set has two.
    """

    value: float
    interval: Range | None = None


@dataclass(frozen=True)
class Means:
    """Of one contender; see ``Result`` for the measures.

    Attributes:
        strategy: its label.
        tau: None from a peer that does not count forwards.
        beside_transformers: None without it.
    """

    strategy: str
    tau: Mean | None
    speedup: Mean
    beside_transformers: Mean | None


@dataclass(frozen=True)
class Report:
    """Everything that a benchmark found, and what it takes to run it again.

    Attributes:
        results: one for each contender, ``plain`` first, on all prompts.
        by_set: the same on each prompt set; empty if there is but one.
        means: over the prompt sets, one for each contender.
        noise: ``plain`` beside itself, run twice among the others: what a ratio is worth here.
        model, dtype, device: of the target model.
        settings: what was asked for.
        prompts: those that were given: how many of each set, their lengths, and a digest of their
            token ids. An interrupted run measured fewer (:attr:`prompts_measured`).
        machine, versions: where it ran.
        memory: what ``peak_memory`` is.
        date: when it ended.
        seconds: that its runs took, one after the other; loading and warming up are not in it.
        repetitions: that were completed; results are of these, or of a part of the first.
        interrupted: whether something ended it before its time.
        pack, compile: how the engines' networks ran; transformers runs the model as it is.
        inflated: what model was inflated to this size, if one was.
        command: that makes it again; None from Python.
        failure: what ended it, unless that was Ctrl-C.
    """

    results: tuple[Result, ...]
    by_set: tuple[Result, ...]
    means: tuple[Means, ...]
    noise: Ratio
    model: str
    dtype: str
    device: str
    settings: dict[str, Any]
    prompts: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, Any]
    memory: str
    date: str
    seconds: float
    repetitions: int
    interrupted: bool
    pack: bool = False
    compile: bool = False
    inflated: str | None = None
    command: str | None = None
    failure: str | None = None

    @property
    def prompts_measured(self) -> dict[str, int]:
        """How many prompts of each set that was given were measured."""
        sets: dict[str, int] = self.prompts["sets"]
        rows = {row.set: row.prompts for row in self.by_set if row.strategy == PLAIN}
        if not self.by_set:  # there is one set
            return dict.fromkeys(sets, self.results[0].prompts)
        return {name: rows.get(name, 0) for name in sets}

    @property
    def quiet(self) -> bool:
        """Whether ``plain`` beside itself is as fast, within 5%."""
        return QUIET[0] <= self.noise.median <= QUIET[1]

    def of(self, strategy: str, set: str = ALL) -> Result:
        """The result of a contender by its label.

        Raises:
            KeyError: no such contender or set.
        """
        for result in (*self.results, *self.by_set):
            if (result.strategy, result.set) == (strategy, set):
                return result
        raise KeyError(f"{strategy} on {set}")
