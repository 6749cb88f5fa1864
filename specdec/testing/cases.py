"""One example that a property is checked on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
        target, draft: the distributions of the target and of the drafter.
        prompts: the row that is examined, then its neighbours in the batch.
        settings: arguments of ``Engine.generate``.
        seed: of the generation, where the property draws from a seed.
        window: the target's sliding window; None for full attention.
        noise: for each token position the noise of every token in tenths, where the property
            draws from a noise table.
        model: name of the random transformers model that is the target; None for the tables.
        small: whether the tree policy has the suite's small options in place of its own.
    """

    target: Table
    draft: Table
    prompts: tuple[tuple[int, ...], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    window: int | None = None
    noise: tuple[tuple[int, ...], ...] = ()
    model: str | None = None
    small: bool = False

    @property
    def rows(self) -> list[list[int]]:
        """The prompts as ``generate`` takes them."""
        return [list(prompt) for prompt in self.prompts]

    def quieter(self) -> Case | None:
        """The same with fewer open distributions, the later ones, at last no more of the draft's;
        None if there are no fewer."""
        if self.model or (not self.draft.open and self.draft.open is not None):
            return None
        first = len(self.prompts[0]) - 1
        last = first + max(self.settings["max_new_tokens"] - 2, 0)
        quiet, own = self.target.quiet, self.target.open
        own = (first, (first + last) // 2, last) if own is None else own[1:] or own
        own = tuple(sorted(set(own)))
        drafts = () if own == self.target.open else own
        other = self.draft.quiet if self.draft.open is not None else quiet
        target, draft = self.target.opened(own, quiet), self.draft.opened(drafts, other)
        return replace(self, target=target, draft=draft)

    def __repr__(self) -> str:
        lines = [f"target   {self.target}", f"draft    {self.draft}"]
        if self.model:
            lines = [f"target   {self.model}"]
        lines += [f"prompts  {' | '.join(str(list(p)) for p in self.prompts)}"]
        lines += [f"settings {', '.join(f'{k}={v}' for k, v in self.settings.items())}"]
        lines += [f"seed     {self.seed}"]
        if self.small:
            lines += ["trees    small ones: see PolicySupport.small"]
        if self.window:
            lines += [f"window   {self.window}"]
        if self.noise:
            lines += [f"noise    {self.noise}"]
        return "\n  " + "\n  ".join(lines)
