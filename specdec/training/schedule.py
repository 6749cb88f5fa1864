"""The schedule of a run: how far it is, and the learning rate there."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.training.batches import Batches
from specdec.training.settings import DEFAULT_EPOCHS, Settings


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a plateau, then linear decay to zero, over steps or over minutes.

    Attributes:
        steps: of the whole run; None for one by minutes.
        minutes: of the whole run; None for one by steps.
        warmup: share of the run in which the rate rises.
        decay: share of the run, at its end, in which it falls.
    """

    steps: int | None
    minutes: float | None
    warmup: float
    decay: float

    def progress(self, step: int, seconds: float) -> float:
        """The share of the run behind ``step`` finished steps, or ``seconds``: 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))

    def rate(self, step: int, seconds: float) -> float:
        """The factor of the learning rate for the step after ``step`` finished ones: in (0, 1]."""
        if self.steps is not None:  # in the middle of the step, so that it is never 0
            at = min(1.0, (step + 0.5) / self.steps)
        else:
            at = self.progress(step, seconds)
        rising = (at + 0.01 * self.warmup) / self.warmup if self.warmup else 1.0
        falling = (1 - at) / self.decay if self.decay else 1.0
        return max(min(1.0, rising, falling), 1e-4)


def amount(schedule: Schedule, batches: Batches, each: int) -> str:
    """How much there is to do in the whole run, in words.

    Args:
        each: batches of a step, of all processes.
    """
    tokens, documents = batches.tokens_of_an_epoch, len(batches.documents)
    if schedule.steps is None:
        return (
            f"{schedule.minutes:.1f} minutes, evaluations included, on {documents:,} documents of "
            f"{tokens:,} tokens"
        )
    passes = schedule.steps * each / len(batches.epoch(0))
    return (
        f"{schedule.steps:,} steps, about {round(passes * tokens):,} tokens: {passes:.1f} passes "
        f"over {documents:,} documents"
    )


def schedule_of(settings: Settings, batches: Batches, processes: int) -> Schedule:
    """The schedule that the settings ask for; passes over the data are counted in steps."""
    steps = settings.steps
    if steps is None and settings.minutes is None:
        epochs = settings.epochs or DEFAULT_EPOCHS
        whole = [len(batches.epoch(number)) for number in range(int(epochs))]
        rest = epochs % 1 * len(batches.epoch(int(epochs))) if epochs % 1 else 0
        steps = max(1, round((sum(whole) + rest) / (settings.accumulate * processes)))
    return Schedule(steps, settings.minutes, settings.warmup, settings.decay)
