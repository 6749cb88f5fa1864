"""The exact distribution of one acceptor's step on distributions written down for every path,
without an engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import tiny
import torch
from torch import Tensor

from specdec.decoding.interfaces import Acceptor
from specdec.decoding.state import State
from specdec.decoding.step import Acceptance
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.decoding.verification import Verification
from specdec.distribution import Distribution
from specdec.models.hidden_states import HiddenStates
from specdec.testing.enumerated_distributions import only_asked
from specdec.testing.enumeration import EnumeratedRandomness, outcomes

Prefix = tuple[int, ...]
Table = dict[Prefix, Tensor]
Draft = Callable[[TreeBuilder], DraftTree]
Taken = tuple[Acceptance, DraftTree]


class Written(Verification):
    """The distributions of a table at every node; a point mass for rows that do not ask."""

    def __init__(self, state: State, tree: DraftTree, p: Table) -> None:
        hidden = HiddenStates(torch.zeros(*tree.tokens.shape, 1, dtype=torch.float64))
        super().__init__(state, tree, hidden, at_paths(p, tree))

    def distribution(self, node: Tensor, needed: Tensor) -> Distribution:
        return only_asked(super().distribution(node, needed), needed)


def at_paths(table: Table, tree: DraftTree) -> Tensor:
    """Log-weights ``[B, N, V]`` of each node's path in ``table``."""
    size = len(table[()])
    codes = {path: index for index, path in enumerate(table)}
    rows = torch.stack(list(table.values())).log()
    index = []
    for tokens, parents in zip(tree.tokens.tolist(), tree.parents.tolist(), strict=True):
        paths: list[Prefix] = [()]
        for node in range(1, tree.size):
            paths.append((*paths[parents[node]], tokens[node]))
        index.append([codes[path] for path in paths])
    return rows[torch.tensor(index)].view(len(index), tree.size, size)


def steps(
    draft: Draft, acceptor: Acceptor, p: Table
) -> tuple[tuple[Acceptance, DraftTree], Tensor]:
    """Every outcome of a step as a row, and the probability ``[R]`` of each."""

    def run(randomness: EnumeratedRandomness, rows: int) -> Taken:
        state = tiny.make_state([[0]] * rows, vocab=len(p[()]), randomness=randomness)
        tree = draft(TreeBuilder(state))
        verification = Written(state, tree, p)
        return acceptor.accept(tree, verification, randomness), tree

    return outcomes(run)


def step_distribution(
    draft: Draft, acceptor: Acceptor, p: Table, horizon: int
) -> dict[Prefix, float]:
    """The distribution of the first ``horizon`` tokens: one step, completed by the target
    itself."""
    (acceptance, tree), weights = steps(draft, acceptor, p)
    distribution: dict[Prefix, float] = defaultdict(float)
    for row, weight in enumerate(weights.tolist()):
        path = acceptance.path[row, : int(acceptance.length[row])]
        tokens = (*tree.tokens[row, path].tolist(), int(acceptance.bonus[row]))
        for rest, probability in continuations(p, tokens, horizon):
            distribution[rest] += weight * probability
    return distribution


def continuations(p: Table, tokens: Prefix, horizon: int) -> list[tuple[Prefix, float]]:
    """Every completion of ``tokens`` to ``horizon`` tokens, with its probability under p."""
    done = [(tokens[:horizon], 1.0)]
    for depth in range(len(tokens), horizon):
        done = [
            ((*prefix, token), weight * float(p[prefix][token]))
            for prefix, weight in done
            for token in range(len(p[prefix[:depth]]))
        ]
    return done


def target_distribution(p: Table, horizon: int) -> dict[Prefix, float]:
    """The autoregressive distribution of the first ``horizon`` tokens."""
    return dict(continuations(p, (), horizon))
