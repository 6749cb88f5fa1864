"""The finished rounds of a benchmark in a file, so that one that was stopped goes on from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from specdec.bench.draft_outcomes import DraftOutcomes
from specdec.bench.timing import Timed
from specdec.decoding.metrics import Stats
from specdec.files.entry_log import EntryLog

Round = dict[str, Timed]

_INSTEAD = "another file (another --log, or another folder, --out, of specdec bench paper)"


class RunLog:
    """A file of JSON lines: what is measured, then each round once all contenders finished it.

    Args:
        path: of the file; made if there is none.
        about: what figures of one benchmark have in common: model, settings, contenders, machine.

    Raises:
        OptionError: a file of another benchmark, with what differs, or none that this could write.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._log = EntryLog(path, about, kind="benchmark", holds="runs", instead=_INSTEAD)
        try:
            self._rounds = {
                (each["repetition"], each["batch"]): _round(each) for _, each in self._log.entries()
            }
        except (TypeError, KeyError, AttributeError) as error:
            raise self._log.foreign() from error

    def find(self, repetition: int, batch: int) -> Round | None:
        """A round that was finished before this run."""
        return self._rounds.get((repetition, batch))

    def add(self, repetition: int, batch: int, round_: Round) -> None:
        """Keep a round."""
        runs = {label: asdict(timed) for label, timed in round_.items()}
        self._log.add({"repetition": repetition, "batch": batch, "runs": runs})


def _round(entry: Mapping[str, Any]) -> Round:
    return {label: _timed(run) for label, run in entry["runs"].items()}


def _timed(run: Mapping[str, Any]) -> Timed:
    tuples = ("alpha", "tried")
    stats = (
        Stats(**{**each, **{name: tuple(each[name]) for name in tuples}}) for each in run["stats"]
    )
    outcomes = DraftOutcomes.restored(found) if (found := run.get("outcomes")) else None
    return Timed(**{**run, "stats": tuple(stats), "outcomes": outcomes})
