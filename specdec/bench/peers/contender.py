"""A decoder in a process of its own as a contender of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specdec.bench.contenders import ContenderError, Decoded
from specdec.bench.peers.protocol import PeerError, Process
from specdec.bench.settings import Settings
from specdec.decoding.metrics import Stats


@dataclass(frozen=True)
class PeerContender:
    """What a worker process decodes in one of its modes, one prompt at a time.

    Its seconds are those that the worker took around its own call.

    Attributes:
        label: what it is called in the report, and the mode.
        process: of the worker; several labels may share it.
        about: versions of what decodes, and all else that its figures depend on.
        most_rows: the most rows that it decodes together.
    """

    label: str
    process: Process
    about: Mapping[str, Any]
    most_rows: int | None = 1

    def decode(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], settings: Settings
    ) -> Decoded:
        """Have the one prompt decoded.

        Raises:
            ContenderError: the worker failed.
        """
        ((row,), (seed,)) = rows, seeds
        try:
            found = self.process.decode(
                self.label,
                row,
                settings.max_new_tokens,
                temperature=settings.temperature,
                seed=seed,
            )
        except PeerError as error:
            raise ContenderError(f"the peer {self.label!r} failed: {error}") from error
        stats = Stats(
            new_tokens=len(found.tokens),
            target_forwards=found.steps,
            draft_forwards=None,
            tau=len(found.tokens) / found.steps if found.steps else 0.0,
        )
        return Decoded([found.tokens], stats, found.steps, seconds=found.seconds)

    def may_differ(self, *, greedy: bool) -> str | None:
        """Where tokens are sampled: it draws other random numbers."""
        return None if greedy else "it draws other random numbers"

    def facts(self) -> dict[str, Any]:
        """What is known about it."""
        return {**self.about, "lossless": True}
