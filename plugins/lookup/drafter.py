"""The drafter ``lookup``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specdec.decoding.interfaces import Drafter, Features
from specdec.decoding.state import State, Step
from specdec.decoding.tree import DraftTree
from specdec.drafting.prompt_lookup import Lookup
from specdec.models.hf_target import HFTarget


class LookupOptions(BaseModel):
    """Options of the drafter ``lookup``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: int = Field(5, ge=1, description="last tokens to look for earlier in the text, at most")
    depth: int = Field(10, ge=1, le=64, description="the most draft tokens in a step")
    floor: float = Field(
        0.1, ge=0, lt=1, description="draft no token that is right with a smaller probability"
    )


class LookupDrafter(Drafter):
    """Drafts what followed the last few tokens earlier in the row's own text, as a chain.

    How far it drafts depends on how often the text has gone on as it did before
    (:class:`~specdec.drafting.repeating_text.RepeatingText`); where nothing is likely the step is
    one of plain decoding.

    Source: Saxena 2023, prompt lookup decoding; LLMA (Yang et al. 2023, arXiv 2304.04487).
    """

    def __init__(self, options: LookupOptions, target: HFTarget) -> None:
        self.options = options
        # Where every size is compiled, all chains have one.
        self._least = options.depth if target.acceleration.fixed_shapes else 0

    def begin(self, state: State, features: Features) -> None:
        self._lookup = Lookup(state, self.options.match, self.options.depth)

    def tree(self, state: State) -> DraftTree:
        floor = self.options.floor
        guesses = [
            guess.first(sum(chance >= floor for chance in guess.chances))
            for guess in self._lookup.guesses()
        ]
        likely = any(guess.tokens for guess in guesses)
        return self._lookup.tree(guesses, self._least if likely else 0)

    def commit(self, step: Step) -> None:
        self._lookup.commit(step)

    def keep_rows(self, rows: Tensor) -> None:
        """Nothing is kept by row."""
