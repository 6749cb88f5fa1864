"""Drafters, tree policies, options and verifiers that are wrong on purpose, each in one way."""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, field_validator

from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import TreeGrower
from specdec.decoding.proposal import Proposal
from specdec.decoding.randomness import Key, Stream
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree, Draws, SampledFrom, label
from specdec.decoding.tree_builder import TreeBuilder
from specdec.decoding.verification import Verification
from specdec.decoding.verifiers import TreeVerifier
from specdec.drafting.coupling import couple
from specdec.drafting.expansion import grow_level
from specdec.drafting.samplers import sample, sample_without_replacement
from specdec.models.hf_target import HFTarget
from specdec.plugin.components import NoOptions
from specdec.testing.table_drafter import TableDrafter
from specdec_plugins.eagle2.policy import Eagle2Options


class Policy(TreeGrower):
    """Trees of two siblings, drawn or ranked, whose label is a lie."""

    levels = 1

    def __init__(self, flaw: str) -> None:
        self.flaw = flaw

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        state = builder.state
        q = state.draft_distribution(proposal.logits).probs
        if self.flaw == "argmax":
            grow_level(builder, proposal, 1)
        elif self.flaw == "mislabelled":
            sample_without_replacement(builder, proposal, 2)
        elif self.flaw == "reused noise":
            nothing = torch.zeros_like(state.root_position())
            token = state.sample(q[:, 0], Key(Stream.DRAFT, nothing, 0, 0))[:, None]
            builder.add(token, nothing[:1], q[:, 0].gather(1, token).log(), branching=1)
        elif self.flaw == "global seed":
            key = Key(Stream.DRAFT, state.root_position(), 0, torch.initial_seed() % 100)
            token = state.sample(q[:, 0], key)[:, None]
            first = torch.zeros_like(token[0])
            builder.add(token, first, q[:, 0].gather(1, token).log(), branching=1)
        else:
            sample(builder, proposal, 3 if self.flaw == "reranked" else 2)
        self._distribution = SampledFrom(q, torch.zeros_like(builder.tree().tokens))

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        tree = builder.tree()
        tokens, valid, values = tree.tokens, tree.valid, tree.log_value
        if self.flaw in ("sorted", "deduplicated", "reranked"):
            order = values[:, 1:].sort(dim=1, descending=True, stable=True).indices[:, :2] + 1
            order = torch.cat([torch.zeros_like(order[:, :1]), order], dim=1)
            tokens, valid, values = (x.gather(1, order) for x in (tokens, valid, values))
        if self.flaw == "deduplicated":
            twice = tokens[:, 2] == tokens[:, 1]
            valid = torch.cat([valid[:, :2], valid[:, 2:] & ~twice[:, None]], dim=1)
        if self.flaw == "low q dropped":
            valid = valid & (values > -1.0)
        parents = tree.parents[:, : tokens.shape[1]]
        wrong = DraftTree(tokens, parents, values, valid, tree.depth, parents.shape[1] - 1)
        return label(wrong, Draws.IID, self._distribution)


class Peeking(TreeGrower):
    """Coupled drafts from a policy that does not say so, so that any acceptor takes them."""

    levels = 1

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        grow_level(builder, couple(builder, proposal), 1)


class Orphans(TreeGrower):
    """A reranking that turns the first child out and keeps what hangs from it."""

    levels = 2

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        grow_level(builder, proposal, 2)
        builder.advance_best(2)

    def rerank(self, builder: TreeBuilder) -> DraftTree:
        tree = builder.tree()
        gone = torch.arange(tree.size) == 1
        return DraftTree(
            tree.tokens, tree.parents, tree.log_value, tree.valid & ~gone, tree.depth, 2
        )


class Unkeyed(TableDrafter):
    """A drafter that draws from a global generator."""

    def __init__(self, flaw: str, options: NoOptions, target: HFTarget) -> None:
        super().__init__(options, target)
        self.flaw = flaw

    def propose(self, state: State, frontier: Frontier) -> Proposal:
        noise = torch.rand(1).item() if self.flaw == "torch" else random.random()
        return Proposal(super().propose(state, frontier).logits * (1 + noise))


class WrongParent(TableDrafter):
    """A drafter that takes the first node of the level above for every node's parent."""

    def propose(self, state: State, frontier: Frontier) -> Proposal:
        return super().propose(state, replace(frontier, parents=torch.zeros_like(frontier.parents)))


class Shifted(Eagle2Options):
    """Options that are converted whenever they are read: written down, they mean something else."""

    @field_validator("depth")
    @classmethod
    def below_the_root(cls, depth: int) -> int:
        return depth + 1


class Careless(BaseModel):
    """Options that take any name."""

    model_config = ConfigDict(frozen=True)

    depth: int = 2
    top_k: int = 2
    budget: int = 3
    score: str = "value"
    rerank: bool = True
    coupled: bool = False


class WrongVerifier(TreeVerifier):
    """A verifier whose positions or mask are wrong."""

    def __init__(self, flaw: str) -> None:
        self.flaw = flaw

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        assert state.cache is not None
        read = tree.with_companions
        depths, mask = read.depths, read.ancestors
        if self.flaw == "positions":
            depths = depths + (depths > 0)
        if self.flaw == "grandparent":
            mask = mask & (depths[:, :, None] - depths[:, None, :] != 2)
        if self.flaw == "siblings visible":
            mask = mask | (tree.parents[:, :, None] == tree.parents[:, None, :])
        if self.flaw == "companions see each other":
            mask = mask.clone()
            mask[:, tree.size :, tree.size :] = True
        positions = state.root_position()[:, None] + depths
        hidden, beside = target.forward(read.tokens, positions, mask, state.cache).split(tree.size)
        return Verification(
            state.verification_inputs, tree, hidden, target.logits(hidden.last), beside
        )


class Telling(TreeVerifier):
    """A right verifier that tells acceptors where each row's answer begins."""

    def verify(self, target: HFTarget, state: State, tree: DraftTree) -> Verification:
        verification = super().verify(target, state, tree)
        begins = [len(state.prompts[request_row]) for request_row in state.request_rows]
        vars(verification)["begins"] = torch.tensor(begins)
        return verification
