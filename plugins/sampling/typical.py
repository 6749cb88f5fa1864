"""Medusa's acceptor, which does not keep the target's distribution."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field

from specdec.decoding.interfaces import Acceptor
from specdec.decoding.randomness import Key, Randomness, Stream
from specdec.decoding.step import Acceptance
from specdec.decoding.traversal import TreeTraversal
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification


class TypicalOptions(BaseModel):
    """Options of the acceptor ``typical``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float = Field(0.09, gt=0, lt=1, description="a token this likely is always accepted")
    delta: float = Field(0.3, gt=0, le=1, description="threshold = min(epsilon, delta exp(-H(p)))")


class Typical(Acceptor):
    """Medusa's rule: accept a draft token that is typical of p. **Lossy**: the distribution is not
    kept.

    At temperature 0 it is greedy matching.

    Source: Medusa (arXiv 2401.10774), section 2.3.1.
    """

    lossless = False

    def __init__(self, options: TypicalOptions) -> None:
        self.epsilon, self.delta = options.epsilon, options.delta

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        traversal = TreeTraversal(tree, verification)
        for _ in traversal.levels():
            distribution = verification.distribution(traversal.node, traversal.undecided)
            p = distribution.probs
            entropy = torch.special.entr(p).sum(dim=-1)
            threshold = (self.delta * (-entropy).exp()).clamp(max=self.epsilon)
            taken = torch.full_like(traversal.node, -1)
            for draw in range(traversal.branching):
                child = tree.child(traversal.node, draw)
                token = tree.token(child)
                typical = (
                    (child >= 0)
                    & (taken < 0)
                    & (p.gather(1, token[:, None]).squeeze(1) > threshold)
                )
                taken = torch.where(typical, child, taken)
            bonus = randomness.categorical(distribution, Key(Stream.TARGET, traversal.position))
            carried = tree.token(taken)
            traversal.descend(taken, torch.where(taken >= 0, carried, bonus))
        return traversal.finish()
