"""The latest match of a text's last tokens earlier in it, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from specdec.drafting.decayed_rate import DecayedRate

# Before anything is read: the probability that a text goes on as after its match, by the tokens
# matched, and the number of tokens that this prior counts for.
_PRIOR, _WEIGHT = (0.1, 0.3, 0.5, 0.65, 0.8), 3.0
_TOKEN_BITS = 32


def match_rates(longest: int) -> list[DecayedRate]:
    """How often a text goes on as after its match, by the tokens matched less one, before anything
    is read."""
    priors = (_PRIOR[min(n, len(_PRIOR) - 1)] for n in range(longest))
    return [DecayedRate(prior, _WEIGHT) for prior in priors]


@dataclass(frozen=True)
class Continuation:
    """How a text may go on.

    Attributes:
        tokens: what followed the same tokens before; empty if nothing was found.
        probabilities: for each of them the probability that it and all before it are right.
    """

    tokens: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()

    def first(self, length: int) -> Continuation:
        """Its first ``length`` tokens."""
        return Continuation(self.tokens[:length], self.probabilities[:length])


class NgramMatcher:
    """Finds where the last tokens of a growing text came earlier in it, and what followed them.

    All of it is a function of the text's tokens alone.

    Args:
        longest: the most tokens that a match is looked for with.
    """

    def __init__(self, longest: int) -> None:
        self._tokens: list[int] = []
        # By length less one: the key of the last run, and where the latest run of each key ends
        # that something followed. Keys are integers: tuples keep the garbage collector busy.
        self._keys: list[int] = []
        self._ends: list[dict[int, int]] = [{} for _ in range(longest)]
        self._rates = match_rates(longest)
        self._match: tuple[int, int] | None = None

    def extend(self, tokens: Iterable[int]) -> None:
        """Append ``tokens``, and learn from each how the text repeats itself."""
        text, ends, rates, keys = self._tokens, self._ends, self._rates, self._keys
        match, shorter = self._match, len(ends) - 1
        for token in tokens:
            if match is not None:
                end, matched = match
                rates[matched - 1].take(text[end] == token)
            place = len(text)
            for known, key in zip(ends, keys, strict=False):
                known[key] = place
            text.append(token)
            keys = [token, *[key << _TOKEN_BITS | token for key in keys[:shorter]]]
            match = None
            for matched, (known, key) in enumerate(zip(ends, keys, strict=False), start=1):
                if key not in known:
                    break  # no longer one came before either
                match = known[key], matched
        self._keys, self._match = keys, match

    def guess(self, most: int) -> Continuation:
        """At most ``most`` tokens that followed the longest match, the latest of several.

        Where they reach the end of the text they go on from the match's end again, as a text does
        that repeats itself. With each token that is right the match grows, and so does the
        probability of the next one.

        Source: Saxena 2023, prompt lookup decoding.
        """
        if self._match is None:
            return Continuation()
        end, matched = self._match
        since = len(self._tokens) - end
        tokens, probabilities, probability = [], [], 1.0
        for place in range(most):
            tokens.append(self._tokens[end + place % since])
            probability *= self._rates[min(matched + place, len(self._rates)) - 1].value
            probabilities.append(probability)
        return Continuation(tuple(tokens), tuple(probabilities))
