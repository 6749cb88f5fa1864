"""What a verification reads beside the tree: committed tokens and the request's rules."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from specdec.request.logits_processors import Processors
from specdec.request.stopping import StopRules


@dataclass(frozen=True)
class VerificationInputs:
    """The committed tokens of a batch, and the request's rules for the token that follows.

    Attributes:
        tokens: ``[B, S]`` int64; past a row's length anything.
        lengths: ``[B]`` int64, committed tokens; the last one is the root.
        span: columns of ``tokens`` that hold every row's tokens.
        active: ``[B]`` bool, rows that are not finished.
        processors: the logits processors, temperature and truncation among them.
        stopping: the rules that end rows.
        keeps_scores: whether verifications keep the processed scores that they are asked for.
    """

    tokens: Tensor
    lengths: Tensor
    span: int
    active: Tensor
    processors: Processors
    stopping: StopRules
    keeps_scores: bool = False
