"""What observers are told of the generation that a step belongs to."""

from __future__ import annotations

import time
from dataclasses import dataclass

from specdec.decoding.clock import Clock


@dataclass(frozen=True, eq=False)
class GenerationInfo:
    """One object for all steps of a generation, and gone with it.

    Attributes:
        model, strategy: by name.
        lossless: whether the acceptor keeps the target's distribution.
        prompt_tokens: of the prompt of each row.
        started: when it began, in nanoseconds since 1970.
        clock: its seconds by phase, so far.
    """

    model: str
    strategy: str
    lossless: bool
    prompt_tokens: tuple[int, ...]
    started: int
    clock: Clock

    @property
    def seconds(self) -> float:
        """Since it began."""
        return (time.time_ns() - self.started) / 1e9
