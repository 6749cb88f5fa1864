"""The texts of a batch, and drafts from them."""

from __future__ import annotations

from collections.abc import Sequence

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
        """The first tokens of each guess as a chain below the roots ``[B]``.

        Args:
            lengths: how many of each row's guess to draft.
        """
        drafts = [guess.tokens[:n] for guess, n in zip(self.guesses, lengths, strict=True)]
        depth = max(map(len, drafts))
        if depth == 0:
            return DraftTree.root(root)
        padded = [[*draft, *[0] * (depth - len(draft))] for draft in drafts]
        valid = [[place < len(draft) for place in range(depth)] for draft in drafts]
        device = root.device
        return DraftTree.chain(
            root, torch.tensor(padded, device=device), torch.tensor(valid, device=device)
        )
