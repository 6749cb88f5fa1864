"""The training loop of every recipe: of whatever learns from a target."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from specdec.errors import CheckpointError, OptionError
from specdec.files.atomic_files import replace_folder
from specdec.models.fingerprints import fingerprint
from specdec.progress import Reporter, Stage
from specdec.training.batch import Batch
from specdec.training.batches import Batches, Dealt, Position
from specdec.training.checkpoint import Progress, check_finite, load_checkpoint, save_checkpoint
from specdec.training.evaluation import HeldOut, TauMeter, agreement, expected_accepted
from specdec.training.interrupts import interrupts
from specdec.training.optimizers import make_optimizers, set_rate
from specdec.training.precision import autocast
from specdec.training.prefetch import prefetch
from specdec.training.processes import agreed, on_main
from specdec.training.recipe import Recipe
from specdec.training.schedule import Schedule
from specdec.training.settings import Settings

if TYPE_CHECKING:
    from accelerate import Accelerator

Ended = Literal["finished", "early", "interrupted"]

_TOLD = 200  # entries of the loss in a history
_MEASURING = 0.15  # share of a run that evaluations may take: all of one by minutes, else tau's


class _Loss(nn.Module):
    """The recipe's loss as a module, so that accelerate can run it in several processes."""

    def __init__(self, recipe: Recipe, network: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.network, self._recipe, self._precision = network, recipe, precision

    def forward(self, batch: Batch) -> Tensor:
        with autocast(batch.tokens.device, self._precision):
            return self._recipe.loss(self.network, batch)


class _Now(NamedTuple):
    """Where a run is: the share that is behind, and the share of the learning rates."""

    done: float
    rate: float


@dataclass
class Run:
    """What a run is made of.

    Attributes:
        recipe: what is trained and how.
        settings: of the run.
        batches: the data.
        held_out: documents to measure agreement on.
        tau: measures tau; None to leave it out.
        schedule: how far the run is and at which rate.
        precision: of forwards.
        folder: of the checkpoint, and of the best network so far (``best-<step>``).
        device: of the target, and so of the network and of batches.
        accelerator: of accelerate.
        reporter: is told how it goes.
        network: what is trained; there once the run has begun.
        progress: how far the run is; there once it has begun.
    """

    recipe: Recipe
    settings: Settings
    batches: Batches
    held_out: HeldOut
    tau: TauMeter | None
    schedule: Schedule
    precision: torch.dtype
    folder: Path
    device: torch.device
    accelerator: Accelerator
    reporter: Reporter
    network: nn.Module = field(init=False)
    progress: Progress = field(init=False)
    _clock: _Clock = field(init=False)

    def train(self) -> Ended:
        """Take steps until the schedule ends, agreement has stopped rising, or Ctrl-C."""
        torch.manual_seed(self.settings.seed)
        self.network = self.recipe.make()
        optimizers = make_optimizers(self.network, self.settings)
        progress = self.progress = self._resumed(optimizers)
        loss_of, *self._optimizers = self.accelerator.prepare(
            _Loss(self.recipe, self.network, self.precision), *optimizers
        )
        batches = self._own_batches(progress.position)
        self._clock = _Clock(progress.seconds)
        saved = self._clock.seconds
        with interrupts() as interrupted, self.reporter.stage("training", 1.0) as stage:
            stage.skip_to(self._now().done)
            while (now := self._now()).done < 1 and not self._stale():
                if agreed(self.accelerator, [self._evaluation_is_due(now.done)])[0]:
                    self._evaluate(now.done)
                    continue
                loss = self._step(loss_of, batches, now.rate)
                self._tell(stage, loss)
                due = self._clock.seconds - saved > 60 * self.settings.save_every
                stop, due = agreed(self.accelerator, [bool(interrupted), due])
                if stop or due:
                    self._save()
                    saved = self._clock.seconds
                if stop:
                    return "interrupted"
        if progress.evaluated != progress.step:
            self._evaluate(now.done)
        self._measure_best()
        return "early" if now.done < 1 else "finished"

    def _step(
        self, loss_of: nn.Module, batches: Iterator[tuple[Dealt, Batch]], rate: float
    ) -> float:
        """One step of the optimizers at a share of their rates; the mean loss of its batches."""
        progress, losses = self.progress, list[Tensor]()
        set_rate(self._optimizers, rate)
        self._seed(progress.step)
        for _ in range(self.settings.accumulate):
            dealt, batch = next(batches)
            with self.accelerator.accumulate(loss_of):
                loss = loss_of(batch)
                self.accelerator.backward(loss)
                losses.append(loss.detach())
                if self.accelerator.sync_gradients:
                    clip = self.settings.clip
                    norm = self.accelerator.clip_grad_norm_(loss_of.parameters(), clip)
                    values = self._checked(losses, norm)
                for optimizer in self._optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
            progress.tokens += dealt.tokens
            progress.position = dealt.position
        progress.step += 1
        return sum(value / self.settings.accumulate for value in values)

    def _checked(self, losses: list[Tensor], norm: Tensor) -> list[float]:
        """The losses of a step, read once, as a GPU waits for it. One that is not finite is refused
        before it changes a weight: all that follows would be lost. So is a norm of the gradient,
        which is the same in all processes, whichever of them has such a loss."""
        *values, gradient = torch.stack([*losses, norm.to(losses[0])]).tolist()
        measured = {"loss": sum(values), "norm of the gradient": gradient}
        for name, value in measured.items():
            if not math.isfinite(value):
                rates = ", ".join(
                    f"{group['lr']:.3g}" for o in self._optimizers for group in o.param_groups
                )
                raise OptionError(
                    f"the {name} of step {self.progress.step + 1} is {value}, at the learning rate "
                    f"{rates}: give a lower one (--set learning_rate=, --set adam_learning_rate=)"
                )
        return list(values)

    def _own_batches(self, position: Position) -> Iterator[tuple[Dealt, Batch]]:
        """The batches of this process, which are dealt out in turns."""
        mine, count = self.accelerator.process_index, self.accelerator.num_processes

        def load(dealt: Dealt) -> tuple[Dealt, Batch]:
            batch = self.batches.load(dealt.batches[mine])
            return dealt, batch.pinned() if self.device.type == "cuda" else batch

        for dealt, batch in prefetch(load, self.batches.dealt(position, count)):
            yield dealt, batch.to(self.device)

    def _seed(self, step: int) -> None:
        """The randomness of a step is a function of the seed, the step and the process, so that a
        resumed run draws what an undisturbed one would have drawn."""
        key = self.settings.seed, step, self.accelerator.process_index
        torch.manual_seed(int(fingerprint(list(key)), 16) % (1 << 63))

    def _now(self) -> _Now:
        step, seconds, schedule = self.progress.step, self._clock.seconds, self.schedule
        shares = [schedule.progress(step, seconds), schedule.rate(step, seconds)]
        return _Now(*agreed(self.accelerator, shares))

    def _evaluation_is_due(self, done: float) -> bool:
        """Whether one is due: as many a run as the settings say; in a run by minutes only while
        they take a small part of it."""
        progress = self.progress
        if progress.step == 0 or self._due(done) <= progress.evaluations:
            return False
        by_minutes = self.schedule.minutes is not None
        return not (by_minutes and progress.measuring > _MEASURING * self._clock.seconds)

    def _has_time(self) -> bool:
        """Whether tau may be measured on the way: the first time, and then as long as evaluations
        take a small part of the run. No weight depends on it."""
        first = not any("tau" in entry for entry in self.progress.history)
        return first or self.progress.measuring <= _MEASURING * self._clock.seconds

    def _due(self, done: float) -> int:
        return int(done * self.settings.evaluations + 1e-9)

    def _evaluate(self, done: float) -> None:
        """Measure, keep the network if it is the best, write a checkpoint."""
        progress, began = self.progress, self._clock.seconds
        check_finite(self.network, progress.step)
        self._seed(progress.step)
        with autocast(self.device, self.precision):
            here = agreement(self.recipe, self.network, self.held_out, self.device)
            depths = agreed(self.accelerator, here)
        progress.evaluations = max(progress.evaluations + 1, self._due(done))
        progress.evaluated = progress.step
        entry: dict[str, Any] = {"step": progress.step, "agreement": depths}
        expected = expected_accepted(depths)
        progress.stale = 0 if expected > progress.best else progress.stale + 1
        if expected > progress.best:
            progress.best, progress.best_step = expected, progress.step
            on_main(
                self.accelerator,
                lambda: replace_folder(self.best, lambda it: self.recipe.save(self.network, it)),
            )
        entry["seconds"] = round(self._clock.seconds, 1)
        progress.history.append(entry)
        self._save()
        every = self.settings.tau_every
        due_tau = bool(every) and progress.evaluations % every == 0
        if (meter := self.tau) and due_tau and agreed(self.accelerator, [self._has_time()])[0]:
            entry["tau"] = self._measured(lambda: meter.measure(self.network))
        progress.measuring += self._clock.seconds - began
        shown = "  ".join(f"{value:.3f}" for value in depths)
        tau = f", tau {entry['tau']:.2f}" if "tau" in entry else ""
        self.reporter.note(f"step {progress.step}: held-out agreement by depth {shown}{tau}")
        self._save()

    def _measure_best(self) -> None:
        """Tau of the network that is published, unless it was measured when that was made."""
        at_best = (e for e in self.progress.history if e["step"] == self.progress.best_step)
        entry = next(e for e in at_best if "agreement" in e)
        if (meter := self.tau) is not None and "tau" not in entry:
            began = self._clock.seconds
            entry["tau"] = self._measured(lambda: meter.of_checkpoint(self.best))
            self.progress.measuring += self._clock.seconds - began
            self._save()

    def _measured(self, measure: Callable[[], float]) -> float:
        """What one process measures while the others wait, known to all."""
        found = [0.0]

        def act() -> None:
            found[0] = measure()

        on_main(self.accelerator, act)
        tau: float = agreed(self.accelerator, found)[0]
        return tau

    def _stale(self) -> bool:
        return 0 < self.settings.patience <= self.progress.stale

    @property
    def checkpoint(self) -> Path:
        """The file of the checkpoint."""
        return self.folder / "checkpoint.pt"

    @property
    def best(self) -> Path:
        """The folder of the best network so far, which the checkpoint names by its step: one is
        never of another time than the other."""
        return self.folder / f"best-{self.progress.best_step}"

    def _resumed(self, optimizers: list[torch.optim.Optimizer]) -> Progress:
        if not self.checkpoint.exists():
            return Progress()
        progress = self.progress = load_checkpoint(self.checkpoint, self.network, optimizers)
        if progress.evaluated >= 0 and not self.best.is_dir():
            raise CheckpointError(
                f"{self.checkpoint} cannot be resumed from, because {self.best.name} is gone: "
                f"remove {self.folder} to begin anew"
            )
        self.reporter.note(
            f"resumed at step {progress.step}, after {progress.seconds / 60:.1f} minutes"
        )
        return progress

    def _save(self) -> None:
        self.progress.seconds = self._clock.seconds
        own = [getattr(each, "optimizer", each) for each in self._optimizers]

        def save() -> None:
            save_checkpoint(self.checkpoint, self.network, own, self.progress)
            for folder in self.folder.glob("best-*"):
                if folder != self.best:
                    shutil.rmtree(folder, ignore_errors=True)

        on_main(self.accelerator, save)

    def _tell(self, stage: Stage, loss: float) -> None:
        progress, seconds = self.progress, self._clock.seconds
        done = self.schedule.progress(progress.step, seconds)
        progress.loss = loss if progress.step == 1 else 0.95 * progress.loss + 0.05 * loss
        speed = round(progress.tokens / max(1e-9, seconds))
        stage.at(done, f"step {progress.step}  loss {progress.loss:.3f}  {speed} tokens/s")
        if int(done * _TOLD) > progress.told:
            progress.told = int(done * _TOLD)
            entry = {"step": progress.step, "loss": round(progress.loss, 5)}
            progress.history.append({**entry, "seconds": round(seconds, 1)})


class _Clock:
    """Seconds of training, over all resumes."""

    def __init__(self, before: float) -> None:
        self._before, self._began = before, time.monotonic()

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + time.monotonic() - self._began
