"""The drafter ``lookup``: prompt lookup as chains."""

from __future__ import annotations

from itertools import accumulate

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.decoding.clock import StepSeconds
from specdec.decoding.interfaces import Features, TreeDrafter, TreeProposer
from specdec.decoding.state import State
from specdec.decoding.step import Step
from specdec.decoding.tree import MOST_LEVELS, DraftTree
from specdec.drafting.draft_size_by_cost import DraftSizeByCost
from specdec.drafting.prompt_lookup import PromptLookup
from specdec.models.hf_target import HFTarget


class LookupOptions(BaseModel):
    """Options of the drafter ``lookup``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_match: int = Field(
        5,
        ge=1,
        le=64,
        description="last tokens to look for earlier in the text, at most (vLLM: "
        "prompt_lookup_max)",
    )
    depth: int = Field(
        10,
        ge=1,
        le=MOST_LEVELS,
        description="the most draft tokens in a step (vLLM: num_speculative_tokens)",
    )
    min_probability: float = Field(
        0.1, ge=0, lt=1, description="draft no token that is right with a smaller probability"
    )
    size_by_cost: bool = Field(
        True,
        description="draft only as many tokens as measured step times justify; false: every token "
        "above the smallest probability, within the other limits (the default with acceptors "
        "other than match)",
    )


class LookupDrafter(TreeDrafter):
    """Drafts what followed the last few tokens earlier in the row's own text, as a chain.

    How far it drafts depends on how often the text has gone on as it did before
    (:class:`~specdec.drafting.ngram_matcher.NgramMatcher`), and on what it takes to verify
    (:class:`~specdec.drafting.draft_size_by_cost.DraftSizeByCost`); where nothing is likely the
    step is one of plain decoding.

    Source: Saxena 2023, prompt lookup decoding; LLMA (Yang et al. 2023, arXiv 2304.04487).
    """

    def __init__(self, options: LookupOptions, target: HFTarget) -> None:
        self.options, self.depends_on_own_row_only = options, not options.size_by_cost
        # Where every size is compiled, all chains have one.
        self._least = options.depth if target.acceleration.fixed_shapes else 0
        self._draft_size = DraftSizeByCost() if options.size_by_cost else None

    def start(self, state: State, features: Features) -> LookupProposer:
        return LookupProposer(self.options, self._draft_size, self._least, state)


class LookupProposer(TreeProposer):
    """The proposer of one generation.

    Args:
        draft_size: what is known of costs; None if all that is likely is to be drafted.
        least: nodes that a chain has at least, where it has any.
    """

    def __init__(
        self, options: LookupOptions, draft_size: DraftSizeByCost | None, least: int, state: State
    ) -> None:
        self._state, self._lookup = state, PromptLookup(state, options.max_match, options.depth)
        self._min_probability, self._draft_size, self._least = (
            options.min_probability,
            draft_size,
            least,
        )

    def tree(self, state: State) -> DraftTree:
        guesses = [
            guess.first(
                sum(probability >= self._min_probability for probability in guess.probabilities)
            )
            for guess in self._lookup.guesses()
        ]
        if self._draft_size:
            depth = max(len(guess.tokens) for guess in guesses)
            gains = accumulate(
                sum(
                    guess.probabilities[place]
                    for guess in guesses
                    if place < len(guess.probabilities)
                )
                for place in range(depth)
            )
            count = self._draft_size.count([*gains], state, self._least)
            guesses = [guess.first(count) for guess in guesses]
        likely = any(guess.tokens for guess in guesses)
        return self._lookup.tree(guesses, self._least if likely else 0)

    def learn(self, step: Step, seconds: StepSeconds) -> None:
        """Learn what steps take."""
        if self._draft_size:
            self._draft_size.learn(step, seconds, self._state)

    def commit(self, step: Step) -> None:
        self._lookup.commit(step)

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing is kept by row."""
