"""What observers are told of the generation that a step belongs to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from specdec.decoding.clock import Clock
from specdec.request.stopping import FinishReason


@dataclass(frozen=True, eq=False)
class GenerationInfo:
    """The generation that a step belongs to: the same object at every step.

    Attributes:
        model, strategy: by name.
        lossless: whether the acceptor keeps the target's distribution.
        prompt_tokens: of the prompt of each row.
        started: when it began, in nanoseconds since 1970.
        clock: its seconds by phase, so far.
        ended: rows that were ended between steps, as by a criterion of transformers' ``generate``:
            why, and how many of their new tokens are meant.
        failure: the type of the error that a step of it raised, by name, once it has; else empty.
            Its prompts may be decoded anew, as those of a batch that does not fit into memory.
    """

    model: str
    strategy: str
    lossless: bool
    prompt_tokens: tuple[int, ...]
    started: int
    clock: Clock
    ended: dict[int, tuple[FinishReason, int]] = field(default_factory=dict)
    failure: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return (time.time_ns() - self.started) / 1e9
