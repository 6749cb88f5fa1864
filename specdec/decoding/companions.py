"""Companions: tokens that a verification reads beside the draft tree and never accepts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Companions:
    """Tokens that go through the target's forward with a draft tree, below its nodes.

    A companion attends to the committed tokens and its own path, as a node does, and takes the
    position that follows its parent's. No node attends to one, no acceptor sees one, and nothing of
    one is committed: they cannot change the text. What they are for is their hidden states
    (:attr:`Verification.companions <specdec.decoding.verification.Verification.companions>`), which
    a drafter may read once the step is committed.

    Attributes:
        tokens: ``[B, M]`` int64, M at least 1.
        parents: ``[B, M]`` int64, the parent's index: 0 to N-1 is a node of the draft tree (N
            nodes), ``N + j`` is companion j. ``parents[:, i] < N + i``.
        depth: the most levels that one is below the root.
    """

    tokens: Tensor
    parents: Tensor
    depth: int
