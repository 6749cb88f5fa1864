"""Acceptors that are wrong on purpose, and the plugin that registers a broken part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lenient import Where, unasked
from parts import GrownBy
from pydantic import BaseModel
from torch import Tensor

from specdec.decoding.interfaces import Acceptor, LevelDrafter, TreeGrower, TreePolicy, Verifier
from specdec.decoding.randomness import Key, KeyedRandomness, Randomness, Stream
from specdec.decoding.step import Acceptance
from specdec.decoding.traversal import TreeTraversal
from specdec.decoding.tree import DraftTree, Draws
from specdec.decoding.verification import Verification
from specdec.distribution import Distribution
from specdec.plugin.components import Component, NoOptions, hookimpl


def _pick(table: Tensor, index: Tensor) -> Tensor:
    return table.gather(1, index[:, None]).squeeze(1)


class Rejection(Acceptor):
    """The rejection rule with one flaw; with none it is exact, and so it is with ``late``.

    ``late`` is no flaw: the bonus token is drawn once, after the traversal, for every row.

    Args:
        where: which draft tokens are accepted without being asked for.
    """

    def __init__(self, flaw: str = "", where: Where | None = None) -> None:
        self.flaw, self.where = flaw, where

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        traversal, root, flaw = (
            TreeTraversal(tree, verification),
            verification.root_position(),
            self.flaw,
        )
        stream = Stream.DRAFT if flaw == "stream" else Stream.ACCEPT
        deciding, left_over = traversal.undecided, None
        for _ in range(tree.depth + 1):
            p = whole = verification.distribution(traversal.node, traversal.undecided).probs
            if flaw == "raw logits":
                rows = torch.arange(len(p))
                p = whole = verification.logits[rows, traversal.node].softmax(-1)
            at = torch.zeros_like(traversal.node) if flaw == "wrong node" else traversal.node
            q = tree.sampled_from.at(at).to(p.dtype) if tree.sampled_from else None
            if q is not None and flaw == "row 0":
                q = q[:1].expand_as(q)
            deciding = traversal.undecided
            taken = torch.where(deciding, -1, 0)
            for draw in range(traversal.branching):
                child = _pick(tree.children[:, :, draw], traversal.node)
                token = _pick(tree.tokens, child.clamp(min=0))
                distribution = (
                    torch.zeros_like(p).scatter(1, token[:, None], 1.0) if q is None else q
                )
                trying = (child >= 0) & (taken < 0)
                ratio = torch.where(trying, _pick(p, token) / _pick(distribution, token), 0.0)
                if flaw == "counted twice":
                    ratio = ratio * _carriers(tree, traversal.node, token)
                heads = randomness.bernoulli(
                    ratio.clamp(max=1), Key(stream, root, traversal.node, draw + 1)
                )
                taken = torch.where(heads, child, taken)
                left = (p - distribution).clamp(min=0)
                total = 1.0 if flaw == "not renormalised" else left.sum(-1, keepdim=True)
                left = torch.where(left.sum(-1, keepdim=True) > 0, left / total, p)
                if flaw != "siblings forgotten":
                    p = torch.where(trying[:, None], left, p)
                if q is not None and tree.draws is Draws.WITHOUT_REPLACEMENT:
                    less = q.scatter(1, token[:, None], 0.0)
                    q = torch.where(trying[:, None], less / less.sum(-1, keepdim=True), q)
            # Whatever the tree's width: a row draws alike with and without neighbours.
            last = 1 if flaw == "colliding keys" else 0
            carried = _pick(tree.tokens, taken.clamp(min=0))
            point = torch.zeros_like(p).scatter(1, carried[:, None], 1.0)
            p = torch.where((taken >= 0)[:, None], point, whole if flaw == "bonus from p" else p)
            key = Key(stream, root, traversal.node, last)
            if flaw == "target stream":
                key = Key(Stream.TARGET, traversal.position)
            if self.where is not None:
                token = randomness.categorical(Distribution.of(p.log()), key)
                traversal.descend(*unasked(self.where, traversal, tree, taken, token))
            elif flaw == "late":
                left_over = p if left_over is None else torch.where(deciding[:, None], p, left_over)
                traversal.descend(taken, carried)
            else:
                traversal.descend(taken, randomness.categorical(Distribution.of(p.log()), key))
        acceptance, key = traversal.finish(), Key(stream, root, 0, 99)
        if left_over is not None:
            bonus = randomness.categorical(Distribution.of(left_over.log()), key)
            return replace(acceptance, bonus=bonus)
        if flaw == "coin":
            heads = randomness.bernoulli(torch.full_like(root, 0.5, dtype=torch.float64), key)
            return replace(acceptance, bonus=acceptance.bonus.masked_fill(heads & ~deciding, 0))
        return acceptance


def _carriers(tree: DraftTree, node: Tensor, token: Tensor) -> Tensor:
    """How many children of ``node [B]`` carry ``token [B]``: ``[B]``."""
    below = (tree.parents == node[:, None]) & tree.valid
    return (below & (tree.tokens == token[:, None])).sum(dim=1)


def _confident(
    tree: DraftTree, node: Tensor, child: Tensor, token: Tensor
) -> tuple[Tensor, Tensor]:
    """The child of highest value where that says it will be accepted, else what was drawn."""
    own = tree.log_value - _pick(tree.log_value, node)[:, None]
    own = own.masked_fill(~((tree.parents == node[:, None]) & tree.valid), float("-inf"))
    best = own.argmax(dim=1)
    sure = _pick(own, best).exp() > 0.5
    return torch.where(sure, best, child), torch.where(sure, _pick(tree.tokens, best), token)


class Match(Acceptor):
    """The match rule with one flaw."""

    seed_exact = True

    def __init__(self, flaw: str, where: Where | None = None) -> None:
        self.flaw, self.where = flaw, where

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        traversal = TreeTraversal(tree, verification)
        if self.flaw == "own generator":
            randomness = KeyedRandomness(torch.zeros_like(traversal.node))
        for level in range(tree.depth + 1):
            distribution = verification.distribution(traversal.node, traversal.undecided)
            position = traversal.position + (level if self.flaw == "by step" else 0)
            if self.flaw == "root's noise":
                position = verification.root_position() + 1
            stream = Stream.ACCEPT if self.flaw == "accept stream" else Stream.TARGET
            token = randomness.categorical(distribution, Key(stream, position))
            child = tree.child_with(traversal.node, token)
            if self.flaw == "confidence":
                child, token = _confident(tree, traversal.node, child, token)
            if self.where is not None:
                child, token = unasked(self.where, traversal, tree, child, token)
            traversal.descend(child, token)
        return traversal.finish()


class Broken:
    """A plugin with one broken part, registered as ``broken`` in its role."""

    def __init__(
        self,
        part: type[Acceptor | TreePolicy | TreeGrower | LevelDrafter | Verifier],
        *flaw: Any,
        options: type[BaseModel] = NoOptions,
    ) -> None:
        self.part, self.flaw, self.options = part, flaw, options

    def _offer(self, *roles: type) -> list[Component]:
        if not issubclass(self.part, roles):
            return []
        return [Component("broken", lambda *given: self._make(*given), self.options, "broken")]

    def _make(self, *given: Any) -> Any:
        part: Any = self.part
        if issubclass(part, TreeGrower):
            return GrownBy(lambda: part(*self.flaw))
        takes_options = issubclass(part, LevelDrafter) or self.options is not NoOptions
        return part(*self.flaw, *given) if takes_options else part(*self.flaw)

    @hookimpl
    def specdec_acceptors(self) -> list[Component]:
        return self._offer(Acceptor)

    @hookimpl
    def specdec_tree_policies(self) -> list[Component]:
        return self._offer(TreePolicy, TreeGrower)

    @hookimpl
    def specdec_verifiers(self) -> list[Component]:
        return self._offer(Verifier)

    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return self._offer(LevelDrafter)
