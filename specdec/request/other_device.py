"""Logits processors that work on another device than the model."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LogitsProcessor

from specdec.request.processor_stages import named
from specdec.request.rewinding import Settles


class OnDevice(LogitsProcessor, Settles):  # type: ignore[misc]
    """A logits processor that is called with tokens and scores on its own device."""

    def __init__(self, processor: LogitsProcessor, device: torch.device) -> None:
        self._processor, self._device = processor, device
        self.__name__ = named(processor)

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        processed: Tensor = self._processor(tokens.to(self._device), scores.to(self._device))
        return processed.to(scores.device) if isinstance(processed, Tensor) else processed

    def settle(self, length: int) -> None:
        if isinstance(self._processor, Settles):
            self._processor.settle(length)
