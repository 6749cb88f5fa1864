"""The optimizers of a run: Muon with AdamW, or AdamW alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from specdec.errors import OptionError
from specdec.training.settings import Settings

_BETAS = (0.9, 0.95)
_MUON_RATE, _ADAM_RATE = 0.02, 0.001


def make_optimizers(network: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """Optimizers of all weights that are trained; each group keeps its ``base_lr``.

    Muon is for the matrices between hidden states; embeddings and lm_heads, whose rows are tokens,
    norms and biases go to AdamW.

    Raises:
        OptionError: Muon with a torch that has none.
    """
    trained = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
    if settings.optimizer == "adamw":
        rate = usual_rate(settings)
        groups = [
            {"params": [w for _, w in trained if w.ndim >= 2], "lr": rate},
            {"params": [w for _, w in trained if w.ndim < 2], "lr": rate, "weight_decay": 0.0},
        ]
        return _with_base_rates([_adam([g for g in groups if g["params"]], settings.weight_decay)])
    if (muon := getattr(torch.optim, "Muon", None)) is None:
        raise OptionError(
            f"torch {torch.__version__} has no Muon: give optimizer='adamw', or install a newer one"
        )
    hidden = [w for name, w in trained if w.ndim == 2 and not _is_by_token(name)]
    rest = [w for name, w in trained if w.ndim != 2 or _is_by_token(name)]
    made: list[torch.optim.Optimizer] = []
    if hidden:
        rate = usual_rate(settings)
        made.append(muon(hidden, lr=rate, weight_decay=settings.weight_decay, momentum=0.95))
    if rest:
        made.append(_adam([{"params": rest, "lr": settings.adam_rate}], 0.0))
    return _with_base_rates(made)


def usual_rate(settings: Settings) -> float:
    """The learning rate of matrices: what was asked for, or the optimizer's usual one."""
    return settings.rate or (_ADAM_RATE if settings.optimizer == "adamw" else _MUON_RATE)


def _is_by_token(name: str) -> bool:
    return "embed" in name or "lm_head" in name


def _adam(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=_BETAS, weight_decay=weight_decay)


def _with_base_rates(made: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
    for optimizer in made:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return made


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every learning rate to ``factor`` of its base."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
