"""A batch: windows of whole documents with the target's hidden states, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from specdec.models.hidden_states import HiddenStates


@dataclass(frozen=True)
class Batch:
    """Windows ``[B, n]``, each of several documents one after the other.

    Attributes:
        tokens: ``[B, n]`` int64; 0 where there is no document.
        document: ``[B, n]`` int64, the number of the document within its window; -1 where there is
            none.
        positions: ``[B, n]`` int64, within the document.
        answer: ``[B, n]`` bool, whether the assistant wrote the token.
        hidden: the target's hidden states at the tokens, ``[B, n, H]`` each.
        best: ``[B, n]`` int64, the target's likeliest next token after each.
    """

    tokens: Tensor
    document: Tensor
    positions: Tensor
    answer: Tensor
    hidden: HiddenStates
    best: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device; from pinned memory without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same in memory that a GPU reads by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        names = ("tokens", "document", "positions", "answer", "best")
        changed = {name: change(getattr(self, name)) for name in names}
        aux = tuple(map(change, self.hidden.aux))
        return replace(self, hidden=HiddenStates(change(self.hidden.last), aux), **changed)

    def causal(self) -> Tensor:
        """``[B, 1, n, n]`` bool: what each token sees, itself and those before it in its document.

        Where there is no document a token sees the others there, so that no row is empty.
        """
        same = self.document[:, None, :, None] == self.document[:, None, None, :]
        return same & torch.ones_like(same[0, 0]).tril()

    def counted(self, ahead: int) -> Tensor:
        """``[B, n]`` bool: the tokens after which the one ``ahead`` of them is of an answer of the
        same document."""
        n = self.tokens.shape[1]
        found = torch.zeros_like(self.answer)
        if ahead < n:
            same = self.document[:, ahead:] == self.document[:, : n - ahead]
            found[:, : n - ahead] = same & self.answer[:, ahead:]
        return found & (self.document >= 0)

    def document_weights(self, counted: Tensor) -> Tensor:
        """``[B, n]`` float32 that add up to 1: for every token that is counted its share, where
        each document counts the same, whatever its length."""
        rows = torch.arange(len(counted), device=counted.device)[:, None]
        key = (rows * (counted.shape[1] + 1) + self.document + 1).flatten()
        amount = counted.flatten().float()
        sums = torch.zeros(int(key.max()) + 1, device=key.device).index_add_(0, key, amount)
        documents = (sums > 0).sum().clamp(min=1)
        share = amount / (sums[key].clamp(min=1) * documents)
        return share.view_as(counted)
