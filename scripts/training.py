"""The loop that trains the embedded target from nothing, on the parts of `specdec train`.

Why it is not the loop of `specdec.training.loop`, which learns from a target: batches there are
whole documents with the hidden states of that target, kept on disk; what is measured is agreement
with it on held-out documents, and tau; the best network is published; a resumed run takes the very
batches that were left. Here there is no target. Windows are packed from an endless stream in which
sources are weighted, they become longer late in the run, the forward is compiled, and what is
measured is the held-out loss of the last network. A batch without a target, another measure and
another stream would be more code there than this loop. Optimizers, rates, the schedule and the
writing of files are the same.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import log
from torch import Tensor, nn

from specdec.files.atomic_files import write_atomically
from specdec.training.optimizers import make_optimizers, set_rate
from specdec.training.schedule import Schedule
from specdec.training.settings import make_settings

SHORT, CONTEXT = 512, 2048  # tokens of a training window: at first, and in the last part
_WARMUP, _DECAY = 0.02, 0.7


@dataclass
class Run:
    """The state of a training run; everything in it is saved."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    schedule: Schedule
    spent: float = 0.0  # seconds of earlier runs
    started: float = 0.0
    step: int = 0
    tokens: int = 0

    @classmethod
    def of(cls, model: nn.Module, args: argparse.Namespace) -> Run:
        """A run by the options of `add_training_options`, resumed if it has begun."""
        settings = make_settings(
            {"learning_rate": args.muon_rate, "adam_learning_rate": args.adam_rate}
        )
        schedule = Schedule(None, args.minutes, _WARMUP, _DECAY)
        run = cls(model, make_optimizers(model, settings), schedule)
        run.resume(args.run / "checkpoint.pt")
        run.started = time.monotonic()
        return run

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self.spent + time.monotonic() - self.started

    @property
    def fraction(self) -> float:
        """Elapsed share of the time, at most 1."""
        return self.schedule.progress(self.step, self.seconds)

    def save(self, path: Path) -> None:
        """Write a resumable checkpoint, in one piece."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "seconds": self.seconds,
            "step": self.step,
            "tokens": self.tokens,
        }
        write_atomically(path, lambda fresh: torch.save(state, fresh))

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.spent, self.step, self.tokens = state["seconds"], state["step"], state["tokens"]
        log(f"resumed at step {self.step}, {self.spent:.0f} s")

    def update(self, tokens: int) -> float:
        """Clip, step at the rate of the schedule, count; returns the rate's factor."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = self.schedule.rate(self.step, self.seconds)
        set_rate(self.optimizers, factor)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        return factor

    def report(self, loss: float, rate: float) -> None:
        """One progress line."""
        log(
            f"step {self.step}  {100 * self.fraction:.1f}%  loss {loss:.3f}"
            f"  rate {rate:.3f}  {self.tokens / self.seconds:.0f} tokens/s"
            f"  {self.tokens / 1e6:.2f}M tokens"
        )

    def figures(self) -> dict[str, Any]:
        """What a model card reports."""
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "steps": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds),
        }


def train(
    run: Run,
    loss_of: Callable[[Tensor], Tensor],
    windows: Callable[[int, int], Iterator[Tensor]],
    args: argparse.Namespace,
    checkpoint: Callable[[], None],
) -> None:
    """Steps until the time is spent, with a checkpoint every ``--save-every`` minutes.

    Args:
        run: what is trained.
        loss_of: the loss on windows ``[B, n]`` of tokens.
        windows: (length, seed) to endless windows. They are short first and whole contexts after
            ``--long-after`` of the time. A resumed run draws a new order.
        args: the options of `add_training_options`.
        checkpoint: saves and publishes.
    """
    length, saved, mean = 0, run.seconds, 0.0
    for count in itertools.count(1):
        wanted = SHORT if run.fraction < args.long_after else CONTEXT
        if wanted != length:
            length = wanted
            stream = windows(length, args.seed + run.step)
        tokens = next(stream)
        loss = loss_of(tokens)
        loss.backward()
        rate = run.update(tokens.numel())
        mean = loss.item() if count == 1 else 0.95 * mean + 0.05 * loss.item()
        if count % 20 == 0:
            run.report(mean, rate)
        if run.fraction >= 1:
            return
        if run.seconds - saved > 60 * args.save_every:
            checkpoint()
            saved = run.seconds


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """The options of `train`."""
    parser.add_argument("--run", type=Path, required=True, help="directory of checkpoints")
    parser.add_argument("--minutes", type=float, default=65, help="training time, over all resumes")
    parser.add_argument("--save-every", type=float, default=4, help="minutes between checkpoints")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens a step")
    parser.add_argument(
        "--long-after", type=float, default=0.75, help=f"share of time at length {SHORT}"
    )
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile"
    )
