"""Prompts as a caller's logits processors see them, where the model reads them in another form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor

from specdec.request.processor_stages import named
from specdec.request.rewinding import Settles


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


class OnShownPrompt(LogitsProcessor, Settles):  # type: ignore[misc]
    """A logits processor that is called with a prompt as it is shown."""

    def __init__(self, processor: LogitsProcessor, prompt: ShownPrompt) -> None:
        self._processor, self._prompt = processor, prompt
        self.__name__ = named(processor)

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        processed: Tensor = self._processor(self._prompt.before(tokens), scores)
        return processed

    def settle(self, length: int) -> None:
        if isinstance(self._processor, Settles):
            padding = self._prompt.tokens.shape[1] - self._prompt.length
            self._processor.settle(length + padding)
