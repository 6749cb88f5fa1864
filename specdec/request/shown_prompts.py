"""Prompts as a caller's logits processors see them, where the model reads them in another form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt with the padding that transformers' ``generate`` puts before it.

    Attributes:
        tokens: ``[1, P]`` int64, padding included.
        length: tokens of the prompt as the model reads it.
    """

    tokens: Tensor
    length: int

    def before(self, answer: Tensor) -> Tensor:
        """``answer [1, n]``, which begins with the prompt as the model reads it, with the prompt as
        it is shown: ``[1, P + n - length]``."""
        return torch.cat([self.tokens, answer[:, self.length :]], dim=1)
