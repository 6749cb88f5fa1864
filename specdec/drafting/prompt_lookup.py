"""Prompt lookup: drafts from the text of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import DraftTree
from specdec.drafting.ngram_matcher import Continuation, NgramMatcher


class PromptLookup:
    """Guesses at every row's next tokens, from its own text, prompt included.

    Rows may leave the batch at any time: texts are kept by prompt, not by row.

    Args:
        state: the rows, before their first step.
        longest: the most tokens that a match is looked for with.
        most: the most tokens of a guess.
    """

    def __init__(self, state: State, longest: int, most: int) -> None:
        self._state, self._most = state, most
        self._texts = {request_row: NgramMatcher(longest) for request_row in state.request_rows}
        # Committed tokens that the texts have not read yet: they do so when guesses are asked for.
        prompts = [list(state.prompts[request_row]) for request_row in state.request_rows]
        self._unread: list[tuple[Sequence[int], list[list[int]]]] = [(state.request_rows, prompts)]
        self._guesses: dict[int, Continuation] = {}

    def commit(self, step: Step) -> None:
        """Take in what a step has committed."""
        self._unread.append((step.request_rows, step.new_tokens))

    def guesses(self) -> list[Continuation]:
        """For each row how it may go on, within its limit; nothing for a row that has ended."""
        state, room = self._state, self._state.room
        self._read()
        return [
            Continuation() if why else self._guesses[request_row].first(room)
            for request_row, why in zip(state.request_rows, state.finish_reasons, strict=True)
        ]

    def _read(self) -> None:
        unread: dict[int, list[int]] = {request_row: [] for request_row in self._texts}
        for request_rows, tokens in self._unread:
            for request_row, new in zip(request_rows, tokens, strict=True):
                unread[request_row] += new
        self._unread.clear()
        for request_row in self._state.request_rows:
            if unread[request_row]:
                self._texts[request_row].extend(unread[request_row])
                self._guesses[request_row] = self._texts[request_row].guess(self._most)

    def tree(self, guesses: Sequence[Continuation], depth: int = 0) -> DraftTree:
        """A chain of each row's guess below its root, valued by its probability.

        Args:
            depth: nodes that a chain has at least, those that it has no guess for invalid.
        """
        root, depth = self._state.root(), max(depth, *(len(guess.tokens) for guess in guesses))
        if depth == 0:
            return DraftTree.root(root)
        missing = [depth - len(guess.tokens) for guess in guesses]
        rows = list(zip(guesses, missing, strict=True))
        tokens = [[*guess.tokens, *[0] * more] for guess, more in rows]
        probabilities = [[1.0, *guess.probabilities, *[0.0] * more] for guess, more in rows]
        value = torch.tensor(probabilities, device=root.device).log()
        valid = value[:, 1:] > float("-inf")
        chain = DraftTree.chain(root, torch.tensor(tokens, device=root.device), valid)
        return replace(chain, log_value=value, from_text=True)
