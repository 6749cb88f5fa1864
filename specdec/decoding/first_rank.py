"""First rank: what it decides in a step goes for every rank of a sharded model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from specdec.decoding.companions import Companions
from specdec.decoding.interfaces import Acceptor
from specdec.decoding.randomness import Randomness
from specdec.decoding.step import Acceptance
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification
from specdec.models.ranks import Ranks


def agreed_tree(ranks: Ranks, tree: DraftTree) -> DraftTree:
    """The first rank's tree.

    On other ranks it does not say how it was drawn: they accept what the first rank accepts.
    """
    sent = ranks.decided(lambda: _moved(tree, torch.device("cpu")))
    return tree if ranks.is_first else _moved(sent, tree.tokens.device)


class FirstRankAccepts(Acceptor):
    """An acceptor that is asked on the first rank alone.

    Logits processors are so called there alone, and may keep what they like. Where a step keeps
    their scores, the others get them.

    Args:
        acceptor: what accepts.
        ranks: of the target.
    """

    def __init__(self, acceptor: Acceptor, ranks: Ranks) -> None:
        self._acceptor, self._ranks = acceptor, ranks

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        own: list[Acceptance] = []

        def decide() -> tuple[Acceptance, list[tuple[Tensor, Tensor, Tensor]]]:
            own.append(self._acceptor.accept(tree, verification, randomness))
            kept = [
                (node.cpu(), rows.cpu(), each.cpu())
                for node, rows, each in verification.kept_scores
            ]
            return _on(own[0], torch.device("cpu")), kept

        sent, kept = self._ranks.decided(decide)
        if own:
            return own[0]
        verification.take_over(kept)
        return _on(sent, tree.tokens.device)


def _on(acceptance: Acceptance, device: torch.device) -> Acceptance:
    return Acceptance(
        path=acceptance.path.to(device),
        length=acceptance.length.to(device),
        bonus=acceptance.bonus.to(device),
        rejected=acceptance.rejected.to(device),
    )


def _moved(tree: DraftTree, device: torch.device) -> DraftTree:
    beside = tree.companions
    if beside is not None:
        beside = Companions(beside.tokens.to(device), beside.parents.to(device), beside.depth)
    return replace(
        tree,
        tokens=tree.tokens.to(device),
        parents=tree.parents.to(device),
        log_value=tree.log_value.to(device),
        valid=tree.valid.to(device),
        companions=beside,
    )
