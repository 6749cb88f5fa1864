"""The training loop that all models share: a budget of minutes, Muon with AdamW, resumable runs."""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import log
from torch import Tensor, nn

SHORT, CONTEXT = 512, 2048  # tokens of a training window: at first, and in the last part


@dataclass
class TimeBudget:
    """Training time, counted over resumes; the learning-rate schedule reads its fraction."""

    minutes: float
    spent: float = 0.0  # seconds of earlier runs
    started: float = 0.0

    def start(self) -> None:
        """Start counting."""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self.spent + time.monotonic() - self.started

    @property
    def fraction(self) -> float:
        """Elapsed share of the budget, at most 1."""
        return min(1.0, self.seconds / (60 * self.minutes))

    def rate(self, warmup: float = 0.02, decay: float = 0.7) -> float:
        """Learning-rate factor: linear warm-up, plateau, then linear decay to 0 at the end."""
        f = self.fraction
        return min(1.0, f / warmup + 0.02, (1 - f) / decay)


def optimizers(
    model: nn.Module, muon_rate: float, adam_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings and norms; each keeps its base rate."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in trained if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for n, p in trained if all(p is not m for m in matrices)]
    made = [
        torch.optim.Muon(matrices, lr=muon_rate, weight_decay=weight_decay, momentum=0.95),
        torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return made


@dataclass
class Run:
    """The state of a training run; everything in it is saved."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    budget: TimeBudget
    step: int = 0
    tokens: int = 0

    def save(self, path: Path) -> None:
        """Write a resumable checkpoint, in one piece."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "seconds": self.budget.seconds,
            "step": self.step,
            "tokens": self.tokens,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".tmp")
        torch.save(state, fresh)
        os.replace(fresh, path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.budget.spent, self.step, self.tokens = state["seconds"], state["step"], state["tokens"]
        log(f"resumed at step {self.step}, {self.budget.spent:.0f} s")

    def update(self, tokens: int) -> float:
        """Clip, step at the rate of the schedule, count; returns the rate's factor."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = self.budget.rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        return factor

    def report(self, loss: float, rate: float) -> None:
        """One progress line."""
        log(
            f"step {self.step}  {100 * self.budget.fraction:.1f}%  loss {loss:.3f}"
            f"  rate {rate:.3f}  {self.tokens / self.budget.seconds:.0f} tokens/s"
            f"  {self.tokens / 1e6:.2f}M tokens"
        )

    def figures(self) -> dict[str, Any]:
        """What a model card reports."""
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "steps": self.step,
            "tokens": self.tokens,
            "seconds": round(self.budget.seconds),
        }


def train(
    run: Run,
    loss_of: Callable[[Tensor], Tensor],
    windows: Callable[[int, int], Iterator[Tensor]],
    args: argparse.Namespace,
    checkpoint: Callable[[], None],
) -> None:
    """Steps until the budget is spent, with a checkpoint every ``--save-every`` minutes.

    Args:
        run: what is trained.
        loss_of: the loss on windows ``[B, n]`` of tokens.
        windows: (length, seed) to endless windows. They are short first and whole contexts after
            ``--long-after`` of the time. A resumed run draws a new order.
        args: the options of `add_training_options`.
        checkpoint: saves and publishes.
    """
    budget = run.budget
    budget.start()
    length, saved, mean = 0, budget.seconds, 0.0
    for count in itertools.count(1):
        wanted = SHORT if budget.fraction < args.long_after else CONTEXT
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
        if budget.fraction >= 1:
            return
        if budget.seconds - saved > 60 * args.save_every:
            checkpoint()
            saved = budget.seconds


def add_training_options(
    parser: argparse.ArgumentParser, minutes: float, long_after: float, compiled: bool
) -> None:
    """The options that `train` and its callers share."""
    parser.add_argument("--run", type=Path, required=True, help="directory of checkpoints")
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="training time, over all resumes"
    )
    parser.add_argument("--save-every", type=float, default=4, help="minutes between checkpoints")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens a step")
    parser.add_argument(
        "--long-after", type=float, default=long_after, help=f"share of time at length {SHORT}"
    )
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=compiled, help="torch.compile"
    )
