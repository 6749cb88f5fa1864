"""Writes down what happens while trees are drafted: the proposals, and what was grown from them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import torch

from specdec.decoding.frontier import Frontier
from specdec.decoding.interfaces import (
    Drafter,
    Features,
    LevelDrafter,
    LevelProposer,
    TreeDrafter,
    TreeGrower,
    TreePolicy,
    TreeProposer,
)
from specdec.decoding.proposal import Proposal, vocabulary_logits
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree, Draws
from specdec.decoding.tree_builder import TreeBuilder
from specdec.engine import Engine
from specdec.testing.references import Children, Node
from specdec.testing.support import Confidence, Support, draft_distribution

Path = tuple[int, ...]


@dataclass
class Drafted:
    """How one tree came about.

    Attributes:
        frontiers: level by level, what the drafter was asked about.
        proposals: for each frontier what it proposed.
        confidences: for each frontier the distribution that its children's values are to come from:
            the proposal, where children are sampled what they are sampled from, and what
            :attr:`PolicySupport.confidence` gives for the policy.
        grown: all candidates; None where no policy is used.
    """

    frontiers: list[Frontier] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    confidences: list[Proposal] = field(default_factory=list)
    grown: DraftTree | None = None

    @property
    def double(self) -> bool:
        """Whether log q is in float64."""
        return self.proposals[0].log_q.dtype == torch.float64

    @property
    def double_values(self) -> bool:
        """Whether values are in float64."""
        return self.grown is not None and self.grown.log_value.dtype == torch.float64

    def distributions(self, row: int) -> dict[Path, dict[int, float]]:
        """For every node that the drafter was asked about, log q of its possible tokens."""
        return self._by_path(self.proposals, row)

    def links(self, row: int) -> dict[Path, dict[int, float]]:
        """For every node that the drafter was asked about, what each child adds to the value."""
        return self._by_path(self.confidences, row)

    def _by_path(self, proposals: list[Proposal], row: int) -> dict[Path, dict[int, float]]:
        found = {}
        for frontier, proposal in zip(self.frontiers, proposals, strict=True):
            log_q = proposal.log_q[row]
            columns = torch.arange(log_q.shape[-1]).expand(proposal.logits.shape)
            tokens = proposal.tokens(columns.to(log_q.device))[row]
            for index in range(frontier.width):
                distribution = zip(tokens[index].tolist(), log_q[index].tolist(), strict=True)
                path = tuple(frontier.path(row, index)[1:])
                found[path] = {token: q for token, q in distribution if q > float("-inf")}
        return found

    def children(self, row: int) -> Children:
        """The children of any node, the likeliest first, equal ones in the order grown.

        Values are summed up in the tree's precision, so that equal paths have equal values.
        """
        assert self.grown is not None
        distributions, double = self.links(row), self.double_values
        rank = {path: index for index, path in enumerate(nodes_of(self.grown, row))}

        def children(node: Node) -> list[Node]:
            if node.path not in distributions:
                raise AssertionError(
                    f"row {row}: the reference expands {list(node.path)}, which the drafter was "
                    f"not asked about; it was about {[list(path) for path in distributions]}"
                )
            found = []
            for token, q in distributions[node.path].items():
                q = q if double else _single(q)
                value = node.value + q if double else _single(node.value + q)
                found.append((-q, rank.get((*node.path, token), len(rank)), token, value))
            return [Node((*node.path, token), value) for _, _, token, value in sorted(found)]

        return children


def nodes_of(tree: DraftTree, row: int) -> dict[Path, float]:
    """The valid draft tokens of a row as paths with their values, in the order of the tree."""
    tokens, parents = tree.tokens[row].tolist(), tree.parents[row].tolist()
    values, valid = tree.log_value[row].tolist(), tree.valid[row].tolist()
    paths: dict[int, Path] = {0: ()}
    for node in range(1, tree.size):
        if valid[node]:
            paths[node] = (*paths[parents[node]], tokens[node])
    return {path: values[node] for node, path in paths.items() if node > 0}


def record(engine: Engine) -> tuple[Engine, list[Drafted]]:
    """The engine, for one generation, and a list that gets an entry for every tree it drafts."""
    drafter, policy, found = engine.parts.drafter, engine.parts.policy, list[Drafted]()
    names, parsed = engine.selection.names, engine.selection.parsed
    growing = Support.of(engine.registry).policy(names["policy"])
    made_of = growing.confidence(parsed.get("policy")) or draft_distribution
    other = engine._with_parts(
        drafter=_recording(drafter, found) if drafter else None,
        policy=_Policy(policy, found, made_of) if policy else None,
    )
    return other, found


def _recording(drafter: Drafter, found: list[Drafted]) -> Drafter:
    if isinstance(drafter, TreeDrafter):
        return _TreeDrafter(drafter, found)
    return _LevelDrafter(drafter, found)


class _LevelDrafter(LevelDrafter):
    def __init__(self, inner: LevelDrafter, found: list[Drafted]) -> None:
        self._inner, self._found = inner, found
        self.needs = inner.needs  # type: ignore[misc]

    def start(self, state: State, features: Features) -> LevelProposer:
        proposer, found = self._inner.start(state, features), self._found
        propose = proposer.propose

        def recorded(frontier: Frontier) -> Proposal:
            if frontier.depth == 0:
                found.append(Drafted())
            proposal = propose(frontier)
            found[-1].frontiers.append(frontier)
            found[-1].proposals.append(proposal)
            return proposal

        vars(proposer)["propose"] = recorded
        return proposer


class _TreeDrafter(TreeDrafter):
    def __init__(self, inner: TreeDrafter, found: list[Drafted]) -> None:
        self._inner, self._found = inner, found
        self.needs = inner.needs  # type: ignore[misc]

    def start(self, state: State, features: Features) -> TreeProposer:
        proposer, found = self._inner.start(state, features), self._found
        tree = proposer.tree

        def recorded(state: State) -> DraftTree:
            found.append(Drafted())
            return tree(state)

        vars(proposer)["tree"] = recorded
        return proposer


class _Policy(TreePolicy):
    def __init__(self, inner: TreePolicy, found: list[Drafted], made_of: Confidence) -> None:
        self._inner, self._found, self._made_of = inner, found, made_of
        self.coupled = inner.coupled

    def start(self, state: State, proposer: LevelProposer | None) -> TreeGrower:
        grower, found = self._inner.start(state, proposer), self._found
        expand, rerank = grower.expand, grower.rerank

        def expanded(builder: TreeBuilder, proposal: Proposal) -> None:
            values = self._made_of(builder, proposal)
            expand(builder, proposal)
            if builder.tree().draws is not Draws.POINT:
                logits = vocabulary_logits(proposal, builder.state.vocab_size)
                values = Proposal(builder.state.draft_distribution(logits).probs.log())
            found[-1].confidences.append(values)

        def reranked(builder: TreeBuilder) -> DraftTree:
            if builder.depth:
                found[-1].grown = builder.tree()
            return rerank(builder)

        vars(grower).update(expand=expanded, rerank=reranked)
        return grower


def _single(value: float) -> float:
    """``value`` rounded to float32."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
