"""Tables: next-token distributions that are written down beforehand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# The log-weight of a token of probability 0: finite, so that the lm_head makes no NaN of it, and
# so low that exp gives exactly 0, after any temperature up to 10 too.
NEVER = -1e4
LARGEST = 6
# The longest text.
CONTEXT = 512


@dataclass(frozen=True)
class Table:
    """Next-token distributions that depend on the last ``order`` tokens.

    Attributes:
        size: tokens that have a probability, 2 to 6.
        order: 0, 1 or 2.
        weights: distributions as unnormalised weights, one for each of these tokens; context number
            c uses distribution c modulo their number, so that one distribution is a model without
            memory.
        vocabulary: tokens V, if they are more. Those that have a probability are then spread over
            it, the last one among them; to any context the others count as the first of them.
        open: the positions after whose token the distributions are as written; None for all. After
            any other the next token is certain.
        quiet: which token that is, as an index of ``weights``, by position; again from the start
            where it is shorter than the text.
    """

    size: int
    order: int
    weights: tuple[tuple[float, ...], ...]
    vocabulary: int | None = None
    open: tuple[int, ...] | None = None
    quiet: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not 2 <= self.size <= LARGEST or self.order not in (0, 1, 2):
            raise ValueError(f"a table has 2 to {LARGEST} tokens and order 0 to 2, not {self}")
        for distribution in self.weights:
            if len(distribution) != self.size or min(distribution) < 0 or sum(distribution) <= 0:
                raise ValueError(f"{distribution} is no distribution over {self.size} tokens")
        if self.vocab_size < self.size or not self.quiet or max(self.quiet) >= self.size:
            raise ValueError(f"the vocabulary or the quiet text does not fit {self.size} tokens")

    @property
    def vocab_size(self) -> int:
        """Tokens V."""
        return self.vocabulary or self.size

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of the tokens that have a probability."""
        return tuple(self.vocab_size * (slot + 1) // self.size - 1 for slot in range(self.size))

    def slots(self, tokens: Tensor) -> Tensor:
        """For token ids of any shape their index among :attr:`tokens`, 0 for any other."""
        found = torch.zeros_like(tokens)
        for slot, token in enumerate(self.tokens):
            found.masked_fill_(tokens == token, slot)
        return found

    def log_probs(self) -> Tensor:
        """``[S + 1, S, S]`` float64, S the size: by the token before the last (S: there is none)
        and the last."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        distributions = (weights / weights.sum(dim=1, keepdim=True)).log().clamp(min=NEVER)
        before, last = torch.meshgrid(
            torch.arange(self.size + 1), torch.arange(self.size), indexing="ij"
        )
        context = (torch.zeros_like(last), last, last * (self.size + 1) + before)[self.order]
        return distributions[context % len(distributions)]

    def certain(self) -> Tensor:
        """``[CONTEXT, S]`` float64: the distribution after each position that is not open; NaN if
        it is."""
        quiet = torch.tensor(self.quiet)[torch.arange(CONTEXT) % len(self.quiet)]
        distributions = torch.full((CONTEXT, self.size), NEVER, dtype=torch.float64)
        distributions.scatter_(1, quiet[:, None], 0.0)
        positions = range(CONTEXT) if self.open is None else self.open
        distributions[[p for p in positions if 0 <= p < CONTEXT]] = torch.nan
        return distributions

    def after(self, prefixes: Tensor) -> Tensor:
        """The log-probabilities ``[n, V]`` after ``prefixes [n, S]`` int64, S at least 1."""
        slots = self.slots(prefixes[:, -2:])
        alone = torch.full_like(slots[:, 0], self.size)
        before = slots[:, 0] if prefixes.shape[1] > 1 else alone
        distributions, certain = (
            self.log_probs()[before, slots[:, -1]],
            self._certain(prefixes.shape[1] - 1),
        )
        return self.spread(distributions if certain is None else certain.expand_as(distributions))

    def _certain(self, position: int) -> Tensor | None:
        if self.open is None or position in self.open:
            return None
        distribution = torch.full((self.size,), NEVER, dtype=torch.float64)
        distribution[self.quiet[position % len(self.quiet)]] = 0.0
        return distribution

    def spread(self, distributions: Tensor) -> Tensor:
        """``distributions [..., S]`` over the whole vocabulary: ``[..., V]``."""
        if self.vocabulary is None:
            return distributions
        whole = distributions.new_full((*distributions.shape[:-1], self.vocabulary), NEVER)
        whole[..., list(self.tokens)] = distributions
        return whole

    def over(self, vocabulary: int | None) -> Table:
        """The same distributions in a vocabulary of that size."""
        return replace(self, vocabulary=vocabulary)

    def opened(self, positions: tuple[int, ...] | None, quiet: tuple[int, ...]) -> Table:
        """The same distributions at ``positions`` only."""
        return replace(self, open=positions, quiet=quiet)

    def __repr__(self) -> str:
        distributions = ", ".join(
            ":".join(map(_exactly, distribution)) for distribution in self.weights
        )
        facts = [f"V={self.vocab_size}", f"order={self.order}", f"weights {distributions}"]
        if self.vocabulary is not None:
            facts.insert(1, f"tokens {list(self.tokens)}")
        if self.open is not None:
            certain = [self.tokens[slot] for slot in self.quiet]
            facts.append(f"after positions {list(self.open)}, elsewhere certainly {certain}")
        return f"<{' '.join(facts)}>"


def _exactly(weight: float) -> str:
    """The shortest text that is the number."""
    return short if float(short := f"{weight:g}") == weight else repr(weight)
