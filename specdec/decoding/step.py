"""Acceptance and step: the accepted path, and what was committed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.models.hidden_states import HiddenStates
from specdec.request.stopping import FinishReason


@dataclass(frozen=True)
class Acceptance:
    """The accepted path of each row and the token that follows it.

    Attributes:
        path: ``[B, D]`` int64 node ids below the root, -1 past the end.
        length: ``[B]`` int64, accepted draft tokens.
        bonus: ``[B]`` int64, the bonus token: drawn from the target at the end of the path.
        rejected: ``[B]`` bool, whether a draft token below the end of the path was rejected.
    """

    path: Tensor
    length: Tensor
    bonus: Tensor
    rejected: Tensor


@dataclass(frozen=True)
class Step:
    """One draft, verify, accept, commit cycle, after stop rules.

    Attributes:
        tree, verification, acceptance: what the parts returned.
        new_tokens: for each row the tokens it committed; empty for a row that had finished.
        counts: ``[B]`` int64, how many they are.
        accepted: for each row the draft tokens among them.
        tried: for each row the levels at which it had a draft token to accept or reject.
        finish_reasons: for each row why it ended with this step, None if it did not.
        kept: ``[B, longest]`` int64, the old root and the accepted path as nodes; the first
            ``counts`` of each row count.
        request_rows: for each row of the batch its index among the rows of the request; rows that
            end may leave the batch.
    """

    tree: DraftTree
    verification: Verification
    acceptance: Acceptance
    new_tokens: list[list[int]]
    counts: Tensor
    accepted: list[int]
    tried: list[int]
    finish_reasons: list[FinishReason | None]
    kept: Tensor
    request_rows: Sequence[int]

    @property
    def longest(self) -> int:
        """The most tokens any row committed."""
        return max(map(len, self.new_tokens))

    @property
    def features(self) -> HiddenStates:
        """Hidden states of tokens before the new root that no earlier step returned: the old root
        and the accepted path, ``[B, longest, H]``; the first ``counts`` of a row count."""
        return self.verification.hidden.gather(self.kept)

    @property
    def logits(self) -> Tensor:
        """The target's scores at the places of the new tokens, ``[B, longest, V]``, float32 at
        least; the first ``counts`` of a row count."""
        return self.verification.logits_at(self.kept)

    @property
    def scores(self) -> Tensor:
        """The same after the logits processors: what the new tokens were drawn from."""
        return self.verification.scores_at(self.kept)
