"""The lossless acceptors: by the target's own draw, and by rejection sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from specdec.decoding.interfaces import Acceptor
from specdec.decoding.randomness import Key, Randomness, Stream
from specdec.decoding.step import Acceptance
from specdec.decoding.traversal import TreeTraversal, matching_path
from specdec.decoding.tree import DraftTree, Draws
from specdec.decoding.verification import Verification
from specdec.distribution import Distribution


class Match(Acceptor):
    """Draw the target's next token with its position's own noise; descend if a child carries it.

    Exact for every tree, whatever it was grown from, and the same seed gives the same tokens as
    plain decoding. Source: the sequential rejection of EAGLE-2 and SpecInfer with point masses
    accepts with the same probability; see docs/architecture.md for the proof.
    """

    seed_exact = True

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        return matching_path(tree, verification, randomness, Stream.TARGET)


class Rejection(Acceptor):
    """Speculative sampling on chains and trees: children are tried in order, p shrinks by each.

    Accept x if ``u q(x) < p(x)``, else ``p <- norm((p - q)+)``; q is the draft distribution, or the
    draft distribution without the tokens drawn before, as the tree's draws say. Where children are
    point masses, to try them one after the other is to draw from p once: x is accepted with what is
    left of p(x).

    Every row makes the same draws: a child that does not exist, or comes after an accepted one, is
    accepted with probability 0, and after an accepted child the last draw is from a point mass at
    its token.

    Source: Leviathan et al. (arXiv 2211.17192), Chen et al. (arXiv 2302.01318); on trees SpecInfer
    (arXiv 2305.09781), algorithm 2, and EAGLE (arXiv 2401.15077), appendix A.
    """

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        if tree.sampled_from is None or verification.greedy:
            return matching_path(tree, verification, randomness, Stream.ACCEPT)
        root = verification.root_position()
        traversal = TreeTraversal(tree, verification)
        for _ in traversal.levels():
            p = verification.distribution(traversal.node, traversal.undecided).probs
            q = tree.sampled_from.at(traversal.node).to(p.dtype)
            taken = torch.where(traversal.undecided, -1, 0)  # decided rows try no child
            for draw in range(traversal.branching):
                child = tree.child(traversal.node, draw)
                token = tree.token(child)
                trying = (child >= 0) & (taken < 0)
                ratio = torch.where(trying, _at(p, token) / _at(q, token), 0.0).clamp(max=1)
                key = Key(Stream.ACCEPT, root, traversal.node, draw + 1)
                taken = torch.where(randomness.bernoulli(ratio, key), child, taken)
                p = torch.where(trying[:, None], _residual(p, q), p)
                if tree.draws is Draws.WITHOUT_REPLACEMENT:
                    q = torch.where(trying[:, None], _without(q, token), q)
            p = torch.where((taken >= 0)[:, None], _point(tree.token(taken), p), p)
            # Draw 0 whatever the tree's width: a row draws alike with and without neighbours.
            key = Key(Stream.ACCEPT, root, traversal.node, 0)
            traversal.descend(taken, randomness.categorical(Distribution.of(p.log()), key))
        return traversal.finish()


def _at(distribution: Tensor, token: Tensor) -> Tensor:
    """The probability of ``token [B]`` under ``distribution [B, V]``: ``[B]``."""
    return distribution.gather(1, token[:, None]).squeeze(1)


def _point(token: Tensor, like: Tensor) -> Tensor:
    """The point mass at ``token [B]``: ``[B, V]``."""
    return torch.zeros_like(like).scatter_(1, token[:, None], 1.0)


def _residual(p: Tensor, q: Tensor) -> Tensor:
    """``norm((p - q)+)``; p where nothing is left of it, which has probability 0."""
    left = (p - q).clamp(min=0)
    total = left.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, left / total, p)


def _without(q: Tensor, token: Tensor) -> Tensor:
    """``q [B, V]`` without ``token [B]``, normalised."""
    left = q.scatter(1, token[:, None], 0.0)
    return left / left.sum(dim=-1, keepdim=True)
