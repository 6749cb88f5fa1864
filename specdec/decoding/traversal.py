"""Tree traversal: the descent from the root of a verified tree that acceptors share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from specdec.decoding.randomness import Randomness, Stream
from specdec.decoding.step import Acceptance
from specdec.decoding.tree import DraftTree
from specdec.decoding.verification import Verification


class TreeTraversal:
    """One descent from the root, for every row at once. The host reads nothing, but see
    :meth:`levels`.

    Attributes:
        node: ``[B]`` int64, where each row stands.
        undecided: ``[B]`` bool, rows whose bonus token is not decided yet.
        position: ``[B]`` int64, index in the whole sequence of the token that follows the node;
            for undecided rows only.
    """

    def __init__(self, tree: DraftTree, verification: Verification) -> None:
        self.tree, self.verification = tree, verification
        self.node = torch.zeros_like(tree.tokens[:, 0])
        self.undecided = verification.active
        self.position = verification.root_position() + 1
        self._bonus = torch.zeros_like(self.node)
        self._path: list[Tensor] = []

    def levels(self) -> Iterator[None]:
        """Yields once for each output position, down to the bonus token below the deepest level;
        where the host may read (:attr:`Verification.can_sync`) it ends as soon as every row is
        decided."""
        for level in range(self.tree.depth + 1):
            if level and self.verification.can_sync and not self.undecided.any():
                return
            yield

    @property
    def branching(self) -> int:
        """The most draft tokens to try below an undecided row's node; none at the deepest level."""
        return self.tree.branching if len(self._path) < self.tree.depth else 0

    def descend(self, child: Tensor, token: Tensor) -> None:
        """Decide one output position of every undecided row.

        A row whose token is an eos ends there and asks for no further distribution, as plain
        decoding would not.

        Args:
            child: ``[B]`` int64, the accepted child; -1 where the row ends with its bonus token.
            token: ``[B]`` int64, the accepted child's token, or the bonus token.
        """
        accepts = self.undecided & (child >= 0)
        self._bonus = torch.where(self.undecided, token, self._bonus)
        self._path.append(torch.where(accepts, child, -1))
        self.node = torch.where(accepts, child, self.node)
        self.undecided = accepts & ~self.verification.stopping.ends(token)
        self.position = self.position + 1

    def finish(self) -> Acceptance:
        """The acceptance, once every row is decided."""
        path = torch.stack(self._path, dim=1)[:, : self.tree.depth]
        path = pad(path, (0, self.tree.depth - path.shape[1]), value=-1)
        length = (path >= 0).sum(dim=1)
        return Acceptance(path, length, self._bonus, self.tree.has_child(self.node))


def matching_path(
    tree: DraftTree, verification: Verification, randomness: Randomness, stream: Stream
) -> Acceptance:
    """Draw the target's token at each node and go to the child that carries it, if there is one.

    Of siblings that carry the same token the first is taken.

    Args:
        stream: ``TARGET`` for the draws of plain decoding, ``ACCEPT`` for draws of this step alone.
    """
    drawn = verification.drawn_everywhere(randomness, stream)
    if drawn is not None:
        return _path_of(tree, verification, drawn)
    traversal = TreeTraversal(tree, verification)
    for _ in traversal.levels():
        token = verification.draw(traversal.node, traversal.undecided, randomness, stream)
        traversal.descend(tree.child_with(traversal.node, token), token)
    return traversal.finish()


def _path_of(tree: DraftTree, verification: Verification, drawn: Tensor) -> Acceptance:
    """The path whose every draft token is the target's, for all nodes at once.

    Args:
        drawn: ``[B, N]`` int64, the target's token after each node.
    """
    ends = verification.stopping.ends
    if tree.depth == 0:
        nothing = torch.zeros_like(drawn[:, 0])
        return Acceptance(drawn[:, :0], nothing, drawn[:, 0], nothing.bool())
    above = tree.parents.clamp(min=0)
    wrong = (drawn.gather(1, above) != tree.tokens).logical_or_(tree.unreachable)
    if verification.stopping.eos:
        # Nothing follows an eos, except below the root: it is no draft token.
        wrong |= ends(tree.tokens).gather(1, above) & (above > 0)
    wrong[:, 0] = False
    cut_off = (tree.ancestors & wrong[:, None]).any(dim=2)
    length, end = torch.where(cut_off, -1, tree.depths).max(dim=1)
    on_path = tree.ancestors.gather(1, end[:, None, None].expand(-1, 1, tree.size)).squeeze(1)
    nodes = torch.arange(tree.size, device=end.device).expand_as(on_path)
    path = end.new_full((len(end), tree.depth + 2), -1)
    path = path.scatter_(1, torch.where(on_path, tree.depths, tree.depth + 1), nodes)
    bonus = drawn.gather(1, end[:, None]).squeeze(1)
    return Acceptance(path[:, 1:-1], length, bonus, tree.has_child(end))
