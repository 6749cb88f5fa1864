"""The answers that a job has on disk, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from specdec.files.entry_log import EntryLog
from specdec.jobs.answering import Answer, Costs

_FINISHED = "finished"


class AnswerLog:
    """A log with an entry for each batch, and in the end one with the figures of the job.

    Args:
        path: of the file.
        about: what the answers depend on.
        rows: of the job.

    Attributes:
        answered: how many rows have an answer.
        costs: of all answers.
        finished: the figures of the job; None before its end.

    Raises:
        OptionError: a log of another job, or another file.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], rows: int) -> None:
        self._log = EntryLog(path, about, kind="job", holds="answers")
        self.finished: Mapping[str, Any] | None = None
        self._begin(rows)
        try:
            for place, entry in self._log.entries():
                if _FINISHED in entry:
                    self.finished = entry[_FINISHED]
                else:
                    self._note(place, entry)
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise self._log.foreign() from error

    def _begin(self, rows: int) -> None:
        self._has, self.answered, self.costs = bytearray(rows), 0, Costs()
        self._places: dict[int, list[int]] = {}  # by window, where its entries begin in the log

    def begin_anew(self) -> None:
        """Forget all answers."""
        self._log.clear()
        self.finished = None
        self._begin(len(self._has))

    def has(self, rows: Iterable[int]) -> bool:
        """Whether all of some rows have an answer."""
        return all(self._has[row] for row in rows)

    def add(self, window: int, answers: list[Answer], costs: Costs) -> None:
        """Keep the answers of a batch; they are on disk afterwards.

        Raises:
            IndexError: an answer to a row that the job does not have; nothing is written.
        """
        if any(answer["index"] >= len(self._has) for answer in answers):
            raise IndexError(f"the job has {len(self._has)} rows")
        entry = {"window": window, "answers": answers, "costs": asdict(costs)}
        self._note(self._log.add(entry), entry)

    def finish(self, figures: Mapping[str, Any]) -> None:
        """The answers are elsewhere now: keep the figures alone."""
        self._log.replace([{_FINISHED: figures}])

    def lines(self) -> Iterator[bytes]:
        """All answers as JSON lines, in the order of the rows."""
        for window in sorted(self._places):
            entries = self._log.read(self._places[window])
            answers = [answer for entry in entries for answer in entry["answers"]]
            yield from map(_line, sorted(answers, key=lambda answer: int(answer["index"])))

    def _note(self, place: int, entry: Mapping[str, Any]) -> None:
        self._places.setdefault(entry["window"], []).append(place)
        for answer in entry["answers"]:
            self._has[answer["index"]] = True
        self.answered += len(entry["answers"])
        self.costs.add(entry["costs"])


def _line(answer: Answer) -> bytes:
    """Readable, but for halves of surrogate pairs, which no UTF-8 has."""
    try:
        return json.dumps(answer, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(answer).encode() + b"\n"
