"""Suffix text: a text that grows, and the likeliest trees of how it goes on."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from specdec.drafting.ngram_matcher import match_rates
from specdec_plugins.suffix.suffix_index import Runs, SuffixIndex, longer


class Node(NamedTuple):
    """A draft token.

    Attributes:
        token: its id.
        parent: the index of the node above it; -1 for the root.
        probability: the estimated probability that it and all above it are right.
    """

    token: int
    parent: int
    probability: float


class SuffixText:
    """A text, the index of its own runs, and how far both it and earlier texts can be trusted.

    Everything here is a function of its tokens and of the earlier texts at the time.

    Args:
        longest: the most tokens that a match is looked for with.
        earlier: index of earlier texts; None if they are not to be used.
    """

    def __init__(self, longest: int, earlier: SuffixIndex | None = None) -> None:
        self._own, self._longest = SuffixIndex(longest), longest
        self._indexes = [self._own] if earlier is None else [self._own, earlier]
        # By index and by tokens matched less one: how often what followed holds the next token.
        self._rates = [match_rates(longest) for _ in self._indexes]
        self._runs: list[int] = []

    def extend(self, tokens: Iterable[int]) -> None:
        """Append ``tokens``, and learn from each how the text repeats itself."""
        for token in tokens:
            for index, rates in zip(self._indexes, self._rates, strict=True):
                matched, counts = index.followers(self._runs)
                if matched:
                    rates[matched - 1].take(token in counts)
            self._own.add(self._runs, token)
            self._runs = longer(self._runs, token, self._longest)

    def tree(self, most: int, depth: int, floor: float) -> list[Node]:
        """The ``most`` likeliest draft tokens, the likeliest first, so parents before children.

        A child's probability is its parent's, times the measured share of matches of that length
        whose followers held the next token, times its count among them. Matches are looked for anew
        at every node, in the text followed by the node's path; of equal counts the latest comes
        first.

        Args:
            depth: levels, at most.
            floor: the smallest probability of a draft token.

        Source: SuffixDecoding (arXiv 2411.04975), section 3.2: greedy expansion by the product of
        frequencies; the trust in a match of some length stands in for its choice by summed scores.
        """
        nodes: list[Node] = []
        waiting: list[tuple[float, int, Node, int, Runs]] = []
        found = 0

        def expand(parent: int, probability: float, level: int, runs: Runs) -> None:
            nonlocal found
            rate, counts = self._followers(runs)
            if level > depth or probability * rate < floor:
                return
            latest_first = tuple(counts.items())[::-1]
            share = probability * rate / sum(count for _, count in latest_first)
            for token, count in latest_first:
                if share * count >= floor:
                    node = Node(token, parent, share * count)
                    heapq.heappush(waiting, (-node.probability, found, node, level, runs))
                    found += 1

        expand(-1, 1.0, 1, self._runs)
        while waiting and len(nodes) < most:
            _, _, node, level, runs = heapq.heappop(waiting)
            nodes.append(node)
            below = longer(runs, node.token, self._longest)
            expand(len(nodes) - 1, node.probability, level + 1, below)
        return nodes

    def _followers(self, runs: Runs) -> tuple[float, Mapping[int, int]]:
        """What followed the longest match, and the probability that one of it is next; the text's
        own where an earlier text matches no longer."""
        best: tuple[float, Mapping[int, int]] = 0.0, {}
        matches = 0
        for index, rates in zip(self._indexes, self._rates, strict=True):
            matched, counts = index.followers(runs)
            if matched > matches:
                best, matches = (rates[matched - 1].value, counts), matched
        return best
