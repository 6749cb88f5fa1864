"""Prompt lookup: drafts from the text of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.drafting.repeating_text import Guess, RepeatingText


class Lookup:
    """Guesses at every row's next tokens, from its own text, prompt included.

    Rows may leave the batch at any time: texts are kept by prompt, not by row.

    Args:
        state: the rows, before their first step.
        longest: the most tokens that a match is looked for with.
        most: the most tokens of a guess.
    """

    def __init__(self, state: State, longest: int, most: int) -> None:
        self._state, self._most = state, most
        self._texts = {member: RepeatingText(longest) for member in state.members}
        # Committed tokens that the texts have not read yet: they do so when guesses are asked for.
        prompts = [list(state.prompts[member]) for member in state.members]
        self._unread: list[tuple[Sequence[int], list[list[int]]]] = [(state.members, prompts)]
        self._guesses: dict[int, Guess] = {}

    def commit(self, step: Step) -> None:
        """Take in what a step has committed."""
        self._unread.append((step.members, step.new_tokens))

    def guesses(self) -> list[Guess]:
        """For each row how it may go on, within its limit; nothing for a row that has ended."""
        state, room = self._state, self._state.room
        self._read()
        return [
            Guess() if why else self._guesses[member].first(room)
            for member, why in zip(state.members, state.finish_reasons, strict=True)
        ]

    def _read(self) -> None:
        unread: dict[int, list[int]] = {member: [] for member in self._texts}
        for members, tokens in self._unread:
            for member, new in zip(members, tokens, strict=True):
                unread[member] += new
        self._unread.clear()
        for member in self._state.members:
            if unread[member]:
                self._texts[member].extend(unread[member])
                self._guesses[member] = self._texts[member].guess(self._most)

    def tree(self, guesses: Sequence[Guess], depth: int = 0) -> DraftTree:
        """A chain of each row's guess below its root, valued by chance.

        Args:
            depth: nodes that a chain has at least, those that it has no guess for invalid.
        """
        root, depth = self._state.root(), max(depth, *(len(guess.tokens) for guess in guesses))
        if depth == 0:
            return DraftTree.root(root)
        missing = [depth - len(guess.tokens) for guess in guesses]
        rows = list(zip(guesses, missing, strict=True))
        tokens = [[*guess.tokens, *[0] * more] for guess, more in rows]
        chances = [[1.0, *guess.chances, *[0.0] * more] for guess, more in rows]
        value = torch.tensor(chances, device=root.device).log()
        valid = value[:, 1:] > float("-inf")
        chain = DraftTree.chain(root, torch.tensor(tokens, device=root.device), valid)
        return replace(chain, log_value=value, from_text=True)
