"""The texts of a batch, and drafts from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from specdec.lookup.text import RepeatingText
from specdec.state import State, Step
from specdec.tree import DraftTree


class Lookup:
    """Guesses at every row's next tokens, from its own text, prompt included.

    Args:
        state: the rows, as they are when it is made.
        longest: the most tokens that a match is looked for with.
        most: the most tokens of a guess.

    Attributes:
        guesses: for each row how it may go on.
    """

    def __init__(self, state: State, longest: int, most: int) -> None:
        self._most = most
        self._texts = [RepeatingText(longest) for _ in range(state.rows)]
        rows = zip(self._texts, state.tokens.tolist(), state.host_lengths, strict=True)
        for text, tokens, length in rows:
            text.extend(tokens[:length])
        self.guesses = [text.guess(most) for text in self._texts]

    def commit(self, step: Step) -> None:
        """Take in what a step has committed."""
        for row, tokens in enumerate(step.new_tokens):
            if tokens:
                self._texts[row].extend(tokens)
                self.guesses[row] = self._texts[row].guess(self._most)

    def select(self, rows: Tensor) -> None:
        """Keep only ``rows [m]`` int64 of the batch."""
        kept: list[int] = rows.tolist()
        self._texts = [self._texts[row] for row in kept]
        self.guesses = [self.guesses[row] for row in kept]

    def tree(self, root: Tensor, lengths: Sequence[int]) -> DraftTree:
        """The first tokens of each guess as a chain below the roots ``[B]``, valued by chance.

        Args:
            lengths: how many of each row's guess to draft.
        """
        depth = max(min(n, len(g.tokens)) for n, g in zip(lengths, self.guesses, strict=True))
        if depth == 0:
            return DraftTree.root(root)
        tokens, chances = [], []
        for guess, n in zip(self.guesses, lengths, strict=True):
            missing = depth - min(n, len(guess.tokens))
            tokens.append([*guess.tokens[:n], *[0] * missing])
            chances.append([1.0, *guess.chances[:n], *[0.0] * missing])
        value = torch.tensor(chances, device=root.device).log()
        valid = value[:, 1:] > float("-inf")
        tree = DraftTree.chain(root, torch.tensor(tokens, device=root.device), valid)
        return replace(tree, log_value=value)
