"""The checkpoint of a run: everything that the next step depends on, in one file."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from specdec.errors import CheckpointError, OptionError
from specdec.files.atomic_files import write_atomically
from specdec.training.batches import Position


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: finished steps.
        tokens: of the batches so far, padding left out.
        seconds: of training, over all resumes.
        position: in the data.
        loss: its running mean.
        told: entries of the loss in the history.
        measuring: seconds of evaluations among them.
        evaluations: that have been made, or passed over.
        evaluated: the step of the last one; -1 before the first.
        best: the most draft tokens of a chain that are accepted, as expected from the agreements;
            -1 before the first evaluation.
        best_step: when that was; the network of then is in the folder ``best-<step>``.
        stale: evaluations since.
        history: what the curves show, an entry for each evaluation and for some steps between.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    position: Position = field(default_factory=Position)
    loss: float = 0.0
    told: int = 0
    measuring: float = 0.0
    evaluations: int = 0
    evaluated: int = -1
    best: float = -1.0
    best_step: int = 0
    stale: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    progress: Progress,
) -> None:
    """Write a checkpoint, whole.

    Raises:
        OptionError: weights that are not finite; what was there before stays.
    """
    check_finite(network, progress.step)
    state = {
        "network": network.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": asdict(progress),
    }
    write_atomically(path, lambda fresh: torch.save(state, fresh))


def check_finite(network: nn.Module, step: int) -> None:
    """Refuse weights that are not finite.

    Raises:
        OptionError: the first such weight, by name.
    """
    for name, weight in network.state_dict().items():
        if weight.is_floating_point() and not weight.isfinite().all():
            raise OptionError(
                f"after step {step} the weight {name} is not finite: give a lower learning rate "
                "(--set learning_rate=, --set adam_learning_rate=)"
            )


def load_checkpoint(
    path: Path, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Progress:
    """Put a checkpoint's state into network and optimizers.

    The randomness of a step is seeded by its number, so there is none to restore.

    Raises:
        CheckpointError: a file that is corrupt or of another run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        fields = dict(state["progress"])
        return Progress(**{**fields, "position": Position(**fields["position"])})
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as e:
        raise CheckpointError(
            f"{path} cannot be resumed from ({e}): remove {path.parent} to begin anew"
        ) from e
