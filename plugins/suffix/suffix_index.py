"""Suffix index: how often each token followed each run of tokens of bounded length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

_TOKEN_BITS = 32
# Runs of a text's last tokens, by length less one: the tokens of a run in one integer.
Runs = Sequence[int]


def longer(runs: Runs, token: int, longest: int) -> list[int]:
    """The runs that end a text, ``longest`` tokens at most, after one more token."""
    return [token, *[run << _TOKEN_BITS | token for run in runs[: longest - 1]]]


class SuffixIndex:
    """Counts of what followed every run of 1 to ``longest`` tokens; the tries of a suffix tree of
    bounded depth, one table a level.

    A token is added in ``longest`` look-ups, however long the text. Texts can be removed again, so
    that an index of many texts has bounded memory. It is a function of the texts it holds alone.

    Args:
        longest: tokens of the longest run.

    Source: SuffixDecoding (arXiv 2411.04975), section 3.1.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        # Most runs were seen once: then the token itself, not a table of one count.
        self._followers: list[dict[int, int | dict[int, int]]] = [{} for _ in range(longest)]

    def add(self, runs: Runs, token: int) -> None:
        """``token`` followed a text that ends with ``runs``."""
        for known, run in zip(self._followers, runs, strict=False):
            counts = known.get(run)
            if counts is None:
                known[run] = token
                continue
            if isinstance(counts, int):
                counts = known[run] = {counts: 1}
            # The latest is last. A table is never empty: another thread may be reading it.
            before = counts.get(token, 0)
            if before and len(counts) > 1:
                del counts[token]
            counts[token] = before + 1

    def add_text(self, tokens: Iterable[int]) -> None:
        """Every token of a text, after those before it."""
        runs: list[int] = []
        for token in tokens:
            self.add(runs, token)
            runs = longer(runs, token, self.longest)

    def remove_text(self, tokens: Iterable[int]) -> None:
        """Take back a text that was added."""
        runs: list[int] = []
        for token in tokens:
            for known, run in zip(self._followers, runs, strict=False):
                counts = known[run]
                if isinstance(counts, int) or (len(counts) == 1 and counts[token] == 1):
                    del known[run]
                elif counts[token] > 1:
                    counts[token] -= 1
                else:
                    del counts[token]
            runs = longer(runs, token, self.longest)

    def followers(self, runs: Runs) -> tuple[int, Mapping[int, int]]:
        """What followed the longest of the runs that anything followed.

        Returns:
            Its length, 0 for none; the count of each token, the latest last.
        """
        matched, found = 0, None
        for known, run in zip(self._followers, runs, strict=False):
            counts = known.get(run)
            if counts is None:
                break  # nor was a longer one followed by anything
            matched, found = matched + 1, counts
        if found is None:
            return 0, {}
        return matched, {found: 1} if isinstance(found, int) else found

    @property
    def size(self) -> int:
        """Runs that it holds."""
        return sum(map(len, self._followers))
