"""How far the distribution was examined: what was really run, not what was meant to be."""

from __future__ import annotations

from dataclasses import dataclass

from specdec.testing.cases import Case


@dataclass
class Reach:
    """The farthest that distributions were enumerated, each by itself.

    Attributes:
        levels: of draft tokens that were accepted or rejected.
        token: the highest id that could be committed.
        position: of a committed token in the whole sequence.
        rows: of a batch.
        steps: of a text.
    """

    levels: int = 0
    token: int = 0
    position: int = 0
    rows: int = 0
    steps: int = 0

    def note(self, case: Case, levels: int, steps: int) -> None:
        """A distribution was enumerated on the case, down to a level and over a number of
        steps."""
        self.levels, self.steps = max(self.levels, levels), max(self.steps, steps)
        self.token = max(self.token, *case.target.tokens)
        self.position = max(self.position, len(case.prompts[0]) + steps - 1)
        self.rows = max(self.rows, len(case.prompts))

    def describe(self, drafted: int | None) -> str:
        """It in one sentence.

        Args:
            drafted: levels of the trees of the strategy, as far as they are known; None where it
                drafts nothing.
        """
        parts = [
            f"token ids up to {self.token:,}",
            f"positions up to {self.position:,}",
            f"batches of up to {self.rows} rows",
            f"up to {self.steps} steps",
        ]
        line = f"Distributions were enumerated for {', '.join(parts)}"
        if drafted is None:
            return line
        drafted = max(drafted, self.levels)
        if not drafted:
            return f"{line}, but no draft token was met: how deep the strategy drafts is not known"
        line += f", and draft tokens down to level {self.levels} of {drafted}"
        if self.levels < drafted:
            line += f"; below level {self.levels} the distribution is not known"
        return line
