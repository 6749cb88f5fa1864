"""What a job did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobSummary:
    """Figures of a job, over all runs that it took.

    Attributes:
        out: the file of answers.
        rows: of the file of prompts, blank lines left out.
        errors: rows that have an error in place of an answer.
        resumed: rows that earlier runs had answered.
        endings: rows by finish reason.
        prompt_tokens, new_tokens: of the rows that were decoded.
        tau: tokens committed per target forward.
        seconds: of decoding.
        tokens_per_second: new tokens in a second of decoding.
        model, strategy: by name.
        lossless: whether the strategy keeps the target's distribution.
    """

    out: str
    rows: int
    errors: int
    resumed: int
    endings: dict[str, int]
    prompt_tokens: int
    new_tokens: int
    tau: float
    seconds: float
    tokens_per_second: float
    model: str
    strategy: str
    lossless: bool
