"""The optimizers of a run: Muon with AdamW, or AdamW alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from specdec.errors import OptionError
from specdec.training.settings import Settings

_BETAS = (0.9, 0.95)
_MUON_RATE, _ADAM_RATE = 0.02, 0.001
NO_MUON = f"torch {torch.__version__} has no Muon, which came with 2.9"


def usable_settings(settings: Settings) -> Settings:
    """The settings with an optimizer that this torch has: AdamW in place of Muon, where that is
    missing and nobody asked for it.

    Raises:
        OptionError: Muon that was asked for, or rates that were given without an optimizer, and so
            for Muon, with a torch that has none.
    """
    if settings.optimizer != "muon" or hasattr(torch.optim, "Muon"):
        return settings
    names = ("optimizer", "learning_rate", "adam_learning_rate")
    given = [name for name in names if name in settings.model_fields_set]
    if not given:
        return settings.model_copy(update={"optimizer": "adamw"})
    what = "optimizer='muon'" if "optimizer" in given else f"{given[0]} is for the optimizer muon"
    raise OptionError(
        f"{what}: {NO_MUON}; give optimizer='adamw' (its usual rate is {_ADAM_RATE}), or install "
        "torch 2.9 or later"
    )


def make_optimizers(network: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """Optimizers of all weights that are trained; each group keeps its ``base_lr``.

    Muon is for the matrices between hidden states; embeddings and lm_heads, whose rows are tokens,
    norms and biases go to AdamW.

    Raises:
        OptionError: Muon with a torch that has none (:func:`usable_settings`).
    """
    settings = usable_settings(settings)
    trained = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
    if settings.optimizer == "adamw":
        rate = usual_rate(settings)
        groups = [
            {"params": [w for _, w in trained if w.ndim >= 2], "lr": rate},
            {"params": [w for _, w in trained if w.ndim < 2], "lr": rate, "weight_decay": 0.0},
        ]
        return _with_base_rates([_adam([g for g in groups if g["params"]], settings.weight_decay)])
    by_token = _by_token(network)
    hidden = [w for _, w in trained if w.ndim == 2 and id(w) not in by_token]
    rest = [w for _, w in trained if w.ndim != 2 or id(w) in by_token]
    made: list[torch.optim.Optimizer] = []
    if hidden:
        rate, decay = usual_rate(settings), settings.weight_decay
        made.append(torch.optim.Muon(hidden, lr=rate, weight_decay=decay, momentum=0.95))
    if rest:
        made.append(_adam([{"params": rest, "lr": settings.adam_learning_rate}], 0.0))
    return _with_base_rates(made)


def usual_rate(settings: Settings) -> float:
    """The learning rate of matrices: what was asked for, or the optimizer's usual one."""
    return settings.learning_rate or (_ADAM_RATE if settings.optimizer == "adamw" else _MUON_RATE)


def _by_token(network: nn.Module) -> set[int]:
    """Weights whose rows are tokens, by their id."""
    modules = (each for each in network.modules() if isinstance(each, nn.Embedding))
    heads = (weight for name, weight in network.named_parameters() if "lm_head" in name)
    return {*(id(each.weight) for each in modules), *map(id, heads)}


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
