"""The n-gram pool of one text, and the candidates of a step as the branches of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Branches(NamedTuple):
    """Candidates below one root, of which those that begin alike share their nodes.

    Attributes:
        tokens: by node, each after the one that it follows; the root is left out.
        parents: for each the index of the one that it follows, -1: the root.
        shares: for each the share of the candidates that go through it.
    """

    tokens: list[int]
    parents: list[int]
    shares: list[float]


class NgramPool:
    """N-grams by their first token, the latest of each.

    Args:
        most: n-grams kept for one first token, and so the most candidates of a step.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ngrams: dict[int, dict[tuple[int, ...], None]] = {}

    def add(self, ngram: Sequence[int]) -> None:
        """Take in an n-gram; of too many with its first token the one seen longest ago goes."""
        first, rest = ngram[0], tuple(ngram[1:])
        known = self._ngrams.setdefault(first, {})
        known.pop(rest, None)
        known[rest] = None
        if len(known) > self._most:
            del known[next(iter(known))]

    def candidates(self, first: int) -> list[tuple[int, ...]]:
        """What has followed ``first`` in the n-grams, the latest one first."""
        return list(reversed(self._ngrams.get(first, {})))


def branches(candidates: Sequence[Sequence[int]]) -> Branches:
    """The candidates as paths of one tree."""
    nodes: dict[tuple[int, int], int] = {}
    counts: list[int] = []
    for candidate in candidates:
        above = -1
        for token in candidate:
            node = nodes.setdefault((above, token), len(nodes))
            if node == len(counts):
                counts.append(0)
            counts[node] += 1
            above = node
    tokens, parents = [token for _, token in nodes], [above for above, _ in nodes]
    return Branches(tokens, parents, [count / len(candidates) for count in counts])
