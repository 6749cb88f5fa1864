"""One example that a property is checked on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from specdec.testing.tables import Table


class Zigzag(LogitsProcessor):  # type: ignore[misc]
    """A processor that depends on the whole prefix: it favours tokens of one parity by its sum."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = torch.arange(scores.shape[-1], device=scores.device)
        odd = (input_ids.sum(dim=-1, keepdim=True) + input_ids.shape[1] + tokens) % 2
        return scores + self.strength * odd

    def __repr__(self) -> str:
        return f"Zigzag({self.strength:g})"


@dataclass(frozen=True)
class Case:
    """One example.

    Attributes:
        target, draft: the laws of the target and of the drafter.
        prompts: the row that is examined, then its neighbours in the batch.
        settings: arguments of ``Engine.generate``.
        seed: of the generation, where the property draws from a seed.
        window: the target's sliding window; None for full attention.
        noise: for each token position the noise of every token in tenths, where the property
            draws from a noise table.
        model: name of the random transformers model that is the target; None for the tables.
    """

    target: Table
    draft: Table
    prompts: tuple[tuple[int, ...], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    window: int | None = None
    noise: tuple[tuple[int, ...], ...] = ()
    model: str | None = None

    @property
    def rows(self) -> list[list[int]]:
        """The prompts as ``generate`` takes them."""
        return [list(prompt) for prompt in self.prompts]

    def __repr__(self) -> str:
        lines = [f"target   {self.target}", f"draft    {self.draft}"]
        if self.model:
            lines = [f"target   {self.model}"]
        lines += [f"prompts  {' | '.join(str(list(p)) for p in self.prompts)}"]
        lines += [f"settings {', '.join(f'{k}={v}' for k, v in self.settings.items())}"]
        lines += [f"seed     {self.seed}"]
        if self.window:
            lines += [f"window   {self.window}"]
        if self.noise:
            lines += [f"noise    {self.noise}"]
        return "\n  " + "\n  ".join(lines)
