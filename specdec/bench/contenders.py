"""Contenders of a benchmark: strategies with their options, and peers that decode otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import nn

import specdec
from specdec.bench.differences import may_differ
from specdec.bench.draft_outcomes import VerifiedTree
from specdec.bench.settings import Settings
from specdec.decoding.metrics import Stats
from specdec.errors import SpecdecError
from specdec.models.checkpoints import resolve_model
from specdec.models.fingerprints import fingerprint_of_files, fingerprint_of_model

if TYPE_CHECKING:
    from specdec.engine import Engine


@dataclass(frozen=True)
class Decoded:
    """The outcome of decoding one batch.

    Attributes:
        tokens: new tokens by row, eos included.
        stats: rows added up; None from a peer that does not count them.
        steps: of the batch; None likewise.
        trees: that were verified, of all steps; empty likewise. They are read after the clock has
            stopped.
        seconds: of the call, from a peer that decodes in a process of its own and times itself.
    """

    tokens: list[list[int]]
    stats: Stats | None = None
    steps: int | None = None
    trees: Sequence[VerifiedTree] = ()
    seconds: float | None = None


class ContenderError(SpecdecError):
    """A contender that cannot go on: the runs end, and what is finished is reported."""


class Contender(Protocol):
    """Anything that decodes a batch of prompts with the target model."""

    @property
    def label(self) -> str:
        """What it is called in the report."""

    @property
    def most_rows(self) -> int | None:
        """The most rows that it decodes together; None for any number."""

    def decode(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], settings: Settings
    ) -> Decoded:
        """Decode the prompts ``rows`` (token ids); this call is what is timed."""

    def may_differ(self, *, greedy: bool) -> str | None:
        """Why its tokens need not be plain decoding's; None where they must be."""

    def facts(self) -> dict[str, Any]:
        """What the record should say: parts and options, versions."""


@dataclass(frozen=True)
class StrategyContender:
    """A strategy of specdec.

    Attributes:
        label: what it is called in the report.
        engine: the strategy on the target model.
    """

    label: str
    engine: Engine
    most_rows: ClassVar[int | None] = None

    def decode(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], settings: Settings
    ) -> Decoded:
        """Run the decoding loop on the whole batch, as `Engine.generate` does."""
        prompts = [list(row) for row in rows]
        generation = self.engine.start(prompts, seed=list(seeds), **settings.decoding())
        trees = [VerifiedTree.of(step) for step in generation]
        tokens = [generation.new_tokens(row) for row in range(len(rows))]
        return Decoded(tokens, generation.metrics.stats(), len(trees), trees)

    def may_differ(self, *, greedy: bool) -> str | None:
        """Only where tokens are sampled, by an acceptor that is not seed-exact."""
        return may_differ(self.engine, greedy=greedy)

    def weights(self) -> str | None:
        """A fingerprint of the drafter's checkpoint; None without one.

        Raises:
            CheckpointError: a checkpoint that is gone.
        """
        checkpoint = self.engine.selection.checkpoint
        if checkpoint is None:
            return None
        if isinstance(checkpoint, nn.Module):
            return fingerprint_of_model(checkpoint)
        return fingerprint_of_files(resolve_model(str(checkpoint), what="drafter"))

    def facts(self) -> dict[str, Any]:
        """Parts by role, their options without the paths of checkpoints, losslessness."""
        selection = self.engine.selection
        options = {
            role: {
                name: _without_install_folder(each)
                for name, each in parsed.model_dump().items()
                if name != _PATH
            }
            for role, parsed in selection.parsed.items()
        }
        return {
            "parts": dict(selection.names),
            "options": {role: own for role, own in options.items() if own},
            "lossless": self.engine.parts.acceptor.lossless,
        }


_PATH = "checkpoint"
_ROOT = f"{Path(specdec.__file__).parent.parent}/"


def _without_install_folder(value: Any) -> Any:
    """An option's value; a file that comes with specdec without where that is installed."""
    return value.removeprefix(_ROOT) if isinstance(value, str) else value
