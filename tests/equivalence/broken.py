"""Parts that are wrong on purpose, each in one way that real code has been wrong."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from specdec.acceptance import Acceptance, Walk
from specdec.growth import Growth, Proposal, grow_level, sample, sample_without_replacement
from specdec.law import Law
from specdec.plugins import Component, NoOptions, hookimpl
from specdec.randomness import Key, KeyedRandomness, Randomness, Stream
from specdec.roles import Acceptor, Drafter, TreePolicy, Verifier
from specdec.state import State
from specdec.target import HFTarget
from specdec.testing.drafting import TableDrafter
from specdec.tree import DraftTree, Draws, SampledFrom, label
from specdec.verification import Verification
from specdec.verifiers import TreeVerifier


def _pick(table: Tensor, index: Tensor) -> Tensor:
    return table.gather(1, index[:, None]).squeeze(1)


class Rejection(Acceptor):
    """The rejection rule with one flaw; with none it is exact."""

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        walk, root, flaw = Walk(tree, verification), verification.root_position(), self.flaw
        stream = Stream.DRAFT if flaw == "stream" else Stream.ACCEPT
        for _ in range(tree.depth + 1):
            p = whole = verification.law(walk.node, walk.walking).probs
            if flaw == "raw logits":
                rows = torch.arange(len(p))
                p = whole = verification.logits[rows, walk.node].softmax(-1)
            at = torch.zeros_like(walk.node) if flaw == "wrong node" else walk.node
            q = tree.sampled_from.at(at).to(p.dtype) if tree.sampled_from else None
            taken = torch.full_like(walk.node, -1)
            for draw in range(tree.branching):
                child = _pick(tree.children[:, :, draw], walk.node)
                token = _pick(tree.tokens, child.clamp(min=0))
                law = torch.zeros_like(p).scatter(1, token[:, None], 1.0) if q is None else q
                ratio = (_pick(p, token) / _pick(law, token)).clamp(max=1).nan_to_num(nan=0.0)
                heads = randomness.bernoulli(ratio, Key(stream, root, walk.node, draw))
                trying = (child >= 0) & (taken < 0)
                taken = torch.where(trying & heads, child, taken)
                left = (p - law).clamp(min=0)
                total = 1.0 if flaw == "not renormalised" else left.sum(-1, keepdim=True)
                left = torch.where(left.sum(-1, keepdim=True) > 0, left / total, p)
                if flaw != "siblings forgotten":
                    p = torch.where((trying & ~heads)[:, None], left, p)
                if q is not None and tree.draws is Draws.WITHOUT_REPLACEMENT:
                    less = q.scatter(1, token[:, None], 0.0)
                    q = torch.where(trying[:, None], less / less.sum(-1, keepdim=True), q)
            last = 0 if flaw == "colliding keys" else tree.branching
            over = whole if flaw == "bonus from p" else p
            bonus = randomness.categorical(Law.of(over.log()), Key(stream, root, walk.node, last))
            token = torch.where(taken >= 0, _pick(tree.tokens, taken.clamp(min=0)), bonus)
            walk.descend(taken, token)
        return walk.finish()


class Match(Acceptor):
    """The match rule with one flaw."""

    seed_exact = True

    def __init__(self, flaw: str) -> None:
        self.flaw = flaw

    def accept(
        self, tree: DraftTree, verification: Verification, randomness: Randomness
    ) -> Acceptance:
        walk = Walk(tree, verification)
        if self.flaw == "own generator":
            randomness = KeyedRandomness(torch.zeros_like(walk.node))
        for level in range(tree.depth + 1):
            law = verification.law(walk.node, walk.walking)
            position = walk.position + (level if self.flaw == "by step" else 0)
            token = randomness.categorical(law, Key(Stream.TARGET, position))
            walk.descend(tree.child_with(walk.node, token), token)
        return walk.finish()


class Policy(TreePolicy):
    """Trees of two siblings, drawn or ranked, whose label is a lie."""

    levels = 1

    def __init__(self, flaw: str) -> None:
        self.flaw = flaw

    def expand(self, growth: Growth, proposal: Proposal) -> None:
        state = growth.state
        q = state.draft_law(proposal.logits).probs
        if self.flaw == "argmax":
            grow_level(growth, proposal, 1)
        elif self.flaw == "mislabelled":
            sample_without_replacement(growth, proposal, 2)
        elif self.flaw == "reused noise":
            nothing = torch.zeros_like(state.root_position())
            token = state.sample(q[:, 0], Key(Stream.DRAFT, nothing, 0, 0))[:, None]
            growth.add(token, nothing[:1], q[:, 0].gather(1, token).log(), branching=1)
        else:
            sample(growth, proposal, 2)
        self._law = SampledFrom(q, torch.zeros_like(growth.tree().tokens))

    def rerank(self, growth: Growth) -> DraftTree:
        tree = growth.tree()
        tokens, valid, values = tree.tokens, tree.valid, tree.log_value
        if self.flaw in ("sorted", "deduplicated"):
            order = values[:, 1:].sort(dim=1, descending=True, stable=True).indices + 1
            order = torch.cat([torch.zeros_like(order[:, :1]), order], dim=1)
            tokens, valid, values = (x.gather(1, order) for x in (tokens, valid, values))
        if self.flaw == "deduplicated":
            twice = tokens[:, 2] == tokens[:, 1]
            valid = torch.cat([valid[:, :2], valid[:, 2:] & ~twice[:, None]], dim=1)
        if self.flaw == "low q dropped":
            valid = valid & (values > -1.0)
        wrong = DraftTree(tokens, tree.parents, values, valid, tree.depth, tree.branching)
        return label(wrong, Draws.IID, self._law)


class Orphans(TreePolicy):
    """A reranking that turns the first child out and keeps what hangs from it."""

    levels = 2

    def expand(self, growth: Growth, proposal: Proposal) -> None:
        grow_level(growth, proposal, 2)
        growth.advance_best(2)

    def rerank(self, growth: Growth) -> DraftTree:
        tree = growth.tree()
        gone = torch.arange(tree.size) == 1
        return DraftTree(
            tree.tokens, tree.parents, tree.log_value, tree.valid & ~gone, tree.depth, 2
        )


class Unkeyed(TableDrafter):
    """A drafter that draws from a global generator."""

    def __init__(self, flaw: str, options: NoOptions, target: HFTarget) -> None:
        super().__init__(options, target)
        self.flaw = flaw

    def propose(self, frontier: Any) -> Proposal:
        noise = torch.rand(1).item() if self.flaw == "torch" else random.random()
        return Proposal(super().propose(frontier).logits * (1 + noise))


class WrongVerifier(TreeVerifier):
    """A verifier whose positions or mask are wrong."""

    def __init__(self, flaw: str) -> None:
        self.flaw = flaw

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        assert state.cache is not None
        depths, mask = tree.depths, tree.ancestors
        if self.flaw == "positions":
            depths = depths + (depths > 0)
        if self.flaw == "grandparent":
            mask = mask & (depths[:, :, None] - depths[:, None, :] != 2)
        if self.flaw == "siblings visible":
            mask = mask | (tree.parents[:, :, None] == tree.parents[:, None, :])
        positions = state.root_position()[:, None] + depths
        hidden = target.forward(tree.tokens, positions, mask, state.cache)
        return Verification(state, tree, hidden, target.logits(hidden.last))


class Broken:
    """A plugin with one broken part, registered as ``broken`` in its role."""

    def __init__(self, part: type[Acceptor | TreePolicy | Drafter | Verifier], *flaw: str) -> None:
        self.part, self.flaw = part, flaw

    def _offer(self, role: type) -> list[Component]:
        if not issubclass(self.part, role):
            return []
        return [Component("broken", lambda *given: self._make(*given), NoOptions, "broken")]

    def _make(self, *given: Any) -> Any:
        part: Any = self.part
        return part(*self.flaw, *given) if issubclass(part, Drafter) else part(*self.flaw)

    @hookimpl
    def specdec_acceptors(self) -> list[Component]:
        return self._offer(Acceptor)

    @hookimpl
    def specdec_tree_policies(self) -> list[Component]:
        return self._offer(TreePolicy)

    @hookimpl
    def specdec_verifiers(self) -> list[Component]:
        return self._offer(Verifier)

    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return self._offer(Drafter)
