"""The exact law of one step, by enumerating every outcome of every draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import tiny
import torch
from torch import Tensor

from specdec.acceptance import Acceptance
from specdec.growth import Growth
from specdec.law import Law
from specdec.randomness import Key, Randomness
from specdec.roles import Acceptor
from specdec.target import Hidden
from specdec.tree import DraftTree
from specdec.verification import Verification

Prefix = tuple[int, ...]
Table = dict[Prefix, Tensor]


class Enumerated(Randomness):
    """Row b replays the outcomes ``scripts[b]``; the first draw past them is the open one.

    Every draw is asked of all rows at once, so the i-th draw is the i-th column of the scripts.
    """

    def __init__(self, scripts: Tensor) -> None:
        self.scripts, self.draws = scripts, 0
        self.open: Tensor | None = None

    def _next(self, probs: Tensor) -> Tensor:
        index, self.draws = self.draws, self.draws + 1
        if index < self.scripts.shape[1]:
            return self.scripts[:, index]
        if self.open is None:
            self.open = probs
        return torch.zeros(len(self.scripts), dtype=torch.int64)

    def categorical(self, law: Law, key: Key) -> Tensor:
        return self._next(law.probs.double().nan_to_num(nan=0.0).clamp(min=0))

    def bernoulli(self, probability: Tensor, key: Key) -> Tensor:
        p = probability.double()
        return self._next(torch.stack([1 - p, p], dim=1)).bool()


def outcomes(run: Callable[[Enumerated, int], Any]) -> tuple[Any, Tensor]:
    """Call ``run(randomness, rows)`` until every draw of every row is decided.

    Returns:
        What the last call returned, and the probability ``[rows]`` of each row's outcomes.
    """
    scripts, weights = torch.zeros(1, 0, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
    while True:
        randomness = Enumerated(scripts)
        result = run(randomness, len(scripts))
        if randomness.open is None:
            return result, weights
        # A row without any outcome draws where nothing depends on it: take the first token.
        probs = randomness.open
        nothing = probs.sum(dim=1) == 0
        probs = probs.clone()
        probs[nothing, 0] = 1.0
        rows, tokens = probs.nonzero(as_tuple=True)
        weights = weights[rows] * probs[rows, tokens]
        scripts = torch.cat([scripts[rows], tokens[:, None]], dim=1)


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


def step_law(
    draft: Callable[[Growth], DraftTree], acceptor: Acceptor, p: Table, horizon: int
) -> dict[Prefix, float]:
    """The law of the first ``horizon`` tokens: one step, completed by the target itself."""
    size = len(p[()])

    def run(randomness: Enumerated, rows: int) -> tuple[Acceptance, DraftTree]:
        state = tiny.make_state([[0]] * rows, vocab=size, randomness=randomness)
        tree = draft(Growth(state))
        hidden = Hidden(torch.zeros(rows, tree.size, 1, dtype=torch.float64))
        verification = Verification(state, tree, hidden, at_paths(p, tree))
        return acceptor.accept(tree, verification, randomness), tree

    (acceptance, tree), weights = outcomes(run)
    law: dict[Prefix, float] = defaultdict(float)
    for row, weight in enumerate(weights.tolist()):
        path = acceptance.path[row, : int(acceptance.length[row])]
        tokens = (*tree.tokens[row, path].tolist(), int(acceptance.bonus[row]))
        for rest, probability in continuations(p, tokens, horizon):
            law[rest] += weight * probability
    return law


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


def target_law(p: Table, horizon: int) -> dict[Prefix, float]:
    """The autoregressive law of the first ``horizon`` tokens."""
    return dict(continuations(p, (), horizon))


def distance(law: dict[Prefix, float], reference: dict[Prefix, float]) -> float:
    """The largest difference of a probability."""
    return max(abs(law.get(k, 0.0) - reference.get(k, 0.0)) for k in law.keys() | reference.keys())
