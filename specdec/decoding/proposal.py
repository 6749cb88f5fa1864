"""Proposals: the draft distribution at every node of a frontier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

NEVER = float("-inf")


@dataclass(frozen=True)
class Proposal:
    """The draft distribution at every frontier node.

    Attributes:
        logits: ``[B, n, C]`` floating point, normalised or not; ``-inf`` where the drafter
            abstains, and a row that is all ``-inf`` grows no children.
        token_ids: ``[C]`` or ``[B, n, C]`` int64, what the columns stand for; None for all of V.
    """

    logits: Tensor
    token_ids: Tensor | None = None

    @property
    def log_q(self) -> Tensor:
        """``[B, n, C]`` float32 at least, normalised."""
        return _no_opinion(_log_softmax(self.logits))

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        """The k likeliest tokens of each node.

        Returns:
            ``log_q [B, n, k]``, descending, and tokens ``[B, n, k]`` int64; where C < k the rest is
            ``-inf``.
        """
        logits, columns = self.logits, self.logits.shape[-1]
        # Where all nodes are one memory, as of heads that do not read draft tokens, one is ranked.
        alike = logits.shape[1] > 1 and logits.stride(1) == 0
        best = _log_softmax(logits[:, :1] if alike else logits).topk(min(k, columns), dim=-1)
        values, places = best.values, best.indices
        if alike:
            every = (-1, logits.shape[1], -1)
            values, places = values.expand(every).contiguous(), places.expand(every).contiguous()
        log_q, tokens = _no_opinion(values), self.tokens(places)
        if columns < k:
            return pad(log_q, (0, k - columns), value=NEVER), pad(tokens, (0, k - columns))
        return log_q, tokens

    def tokens(self, columns: Tensor) -> Tensor:
        """The token ids at ``columns [B, n, k]``."""
        if self.token_ids is None:
            return columns
        if self.token_ids.dim() == 1:
            return self.token_ids[columns]
        return self.token_ids.gather(-1, columns)


def _log_softmax(logits: Tensor) -> Tensor:
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return torch.log_softmax(logits, dim=-1, dtype=wide)


def _no_opinion(log_q: Tensor) -> Tensor:
    """A row that is all ``-inf`` stays so: normalising made it NaN."""
    return log_q.nan_to_num(nan=NEVER, neginf=NEVER)


def vocabulary_logits(proposal: Proposal, size: int) -> Tensor:
    """The proposal's logits over all of V: ``[B, n, V]``."""
    if proposal.token_ids is None:
        return proposal.logits
    full = proposal.logits.new_full((*proposal.logits.shape[:2], size), NEVER)
    return full.scatter(2, proposal.token_ids.expand_as(proposal.logits), proposal.logits)
