"""A process that trains, alone or as one of several, and keeps what it ended with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from specdec.training.loop import Run
from specdec.training.pipeline import train

# A run that takes a second or two.
SHORT: dict[str, Any] = {
    "steps": 12,
    "length": 48,
    "batch_tokens": 192,
    "evaluations": 3,
    "tau_every": 0,
    "precision": "float32",
}


@torch.no_grad()
def mean_loss(run: Run) -> float:
    """Of the network that a run has ended with, on all batches of an epoch."""
    batches = [run.batches.load(windows) for windows in run.batches.epoch(0)]
    losses = [run.recipe.loss(run.network, batch).item() for batch in batches]
    return sum(losses) / len(losses)


def train_and_keep(folder: Path, given: dict[str, Any]) -> None:
    """Train, and write ``folder / "<process>.pt"``: weights and the mean loss."""
    to_the_end = Run.train

    def kept(run: Run) -> Any:
        ended = to_the_end(run)
        found = {"weights": run.network.state_dict(), "loss": mean_loss(run)}
        torch.save(found, folder / f"{run.accelerator.process_index}.pt")
        return ended

    Run.train = kept  # type: ignore[method-assign]
    try:
        train(**given)
    finally:
        Run.train = to_the_end  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_and_keep(Path(sys.argv[1]), json.loads(sys.argv[2]))
