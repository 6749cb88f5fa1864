"""Logits processors that are called with other tokens or on another device than the model's."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor

from specdec.request.processor_stages import named
from specdec.request.rollback import Settles
from specdec.request.shown_prompts import ShownPrompt


class WrappedProcessor(LogitsProcessor, Settles):  # type: ignore[misc]
    """A logits processor that another one stands for, under its name."""

    def __init__(self, processor: LogitsProcessor) -> None:
        self._processor = processor
        self.__name__ = named(processor)

    def settle(self, length: int) -> None:
        if isinstance(self._processor, Settles):
            self._processor.settle(length)


class OnDevice(WrappedProcessor):
    """A logits processor that is called with tokens and scores on its own device."""

    def __init__(self, processor: LogitsProcessor, device: torch.device) -> None:
        super().__init__(processor)
        self._device = device

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        processed: Tensor = self._processor(tokens.to(self._device), scores.to(self._device))
        return processed.to(scores.device) if isinstance(processed, Tensor) else processed


class OnShownPrompt(WrappedProcessor):
    """A logits processor that is called with a prompt as it is shown."""

    def __init__(self, processor: LogitsProcessor, prompt: ShownPrompt) -> None:
        super().__init__(processor)
        self._prompt = prompt

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        processed: Tensor = self._processor(self._prompt.before(tokens), scores)
        return processed

    def settle(self, length: int) -> None:
        super().settle(length + self._prompt.tokens.shape[1] - self._prompt.length)
