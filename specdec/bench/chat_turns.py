"""Prompts of several turns: what a contender reads before each of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specdec.bench.differences import first_difference
from specdec.bench.prompt_sets import Prompt, conversation_ids

if TYPE_CHECKING:
    from specdec.engine import Engine

Answers = list[list[int]]


@dataclass(frozen=True)
class ChatTurns:
    """Goes on with what has been answered.

    Attributes:
        engine: whose tokenizer and context length hold for all contenders.
        max_new_tokens: of an answer.
    """

    engine: Engine
    max_new_tokens: int

    def next_prompt(self, prompt: Prompt, answers: Answers) -> tuple[int, ...] | None:
        """The token ids before the next answer; None after the last one.

        A turn for which the answers left no room is left out, with those after it.

        Args:
            answers: the new tokens of each answer so far.
        """
        if not answers:
            return prompt.token_ids
        if len(answers) >= len(prompt.turns):
            return None
        tokenizer = self.engine.tokenizer
        texts = [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]  # type: ignore[union-attr]
        ids = conversation_ids(prompt.turns[: len(answers) + 1], texts, self.engine)
        return ids if len(ids) + self.max_new_tokens <= self.engine.target.context_limit else None


def longest_text(prompts: Sequence[Prompt], engine: Engine, max_new_tokens: int) -> int:
    """The most tokens that a prompt and all its answers may come to."""
    longest = 0
    for prompt in prompts:
        turns, read = max(1, len(prompt.turns)), len(prompt.token_ids)
        if prompt.turns:
            read = len(conversation_ids(prompt.turns, [""] * (turns - 1), engine))
        longest = max(longest, read + turns * max_new_tokens)
    return min(longest, engine.target.context_limit)


def first_difference_in_turns(
    ours: Sequence[list[int]], theirs: Sequence[list[int]]
) -> tuple[int, int] | None:
    """The first turn in which two contenders' answers differ, and the first token; None if none."""
    for turn, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if (at := first_difference(one, other)) is not None:
            return turn, at
    return None if len(ours) == len(theirs) else (min(len(ours), len(theirs)), 0)
