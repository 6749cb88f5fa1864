"""The finished rounds of a benchmark in a file, so that one that was stopped goes on from them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from specdec.bench.draft_outcomes import DraftOutcomes
from specdec.bench.timing import Timed
from specdec.decoding.metrics import Stats
from specdec.errors import OptionError

Round = dict[str, Timed]


class RunLog:
    """A file of JSON lines: what is measured, then each round once all contenders finished it.

    Args:
        path: of the file; made if there is none.
        about: what figures of one benchmark have in common: model, settings, contenders, machine.

    Raises:
        OptionError: a file of another benchmark, with what differs, or none that this could write.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        self._rounds: dict[tuple[int, int], Round] = {}
        own = json.loads(json.dumps(about, default=str))
        try:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        except OSError as error:
            raise OptionError(f"{path} cannot be read: {error}") from error
        whole = [line for line in lines if line.endswith(b"\n")]
        first = json.dumps({"benchmark": own}).encode()
        if not whole and first.startswith(b"".join(lines)):  # empty, or cut off at once
            self._write({"benchmark": own}, "w")
            return
        try:
            found, *rounds = map(json.loads, whole)
            self._rounds = {(each["repetition"], each["batch"]): _round(each) for each in rounds}
            other = [name for name in own if found["benchmark"].get(name) != own[name]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OptionError(f"{path} holds no runs of a benchmark: give another file") from error
        if other:
            name = other[0]
            raise OptionError(
                f"{path} holds runs of another benchmark: there {name} is "
                f"{found['benchmark'].get(name)!r}, here {own[name]!r}. Give another file, or "
                "remove this one"
            )
        if len(whole) < len(lines):  # the last line was cut off when it was written
            path.write_bytes(b"".join(whole))

    def find(self, repetition: int, batch: int) -> Round | None:
        """A round that was finished before this run."""
        return self._rounds.get((repetition, batch))

    def add(self, repetition: int, batch: int, round_: Round) -> None:
        """Keep a round."""
        runs = {label: asdict(timed) for label, timed in round_.items()}
        self._write({"repetition": repetition, "batch": batch, "runs": runs}, "a")

    def _write(self, entry: dict[str, Any], mode: Literal["w", "a"]) -> None:
        with self._path.open(mode, encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _round(entry: Mapping[str, Any]) -> Round:
    return {label: _timed(run) for label, run in entry["runs"].items()}


def _timed(run: Mapping[str, Any]) -> Timed:
    tuples = ("alpha", "tried")
    stats = (
        Stats(**{**each, **{name: tuple(each[name]) for name in tuples}}) for each in run["stats"]
    )
    outcomes = DraftOutcomes.restored(found) if (found := run.get("outcomes")) else None
    return Timed(**{**run, "stats": tuple(stats), "outcomes": outcomes})
