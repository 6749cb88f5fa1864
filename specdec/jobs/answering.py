"""Answers to rows: full batches of rows of like length; a bad row gets an error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specdec.ended_once import EndedOnce
from specdec.engine import Engine, check_engine
from specdec.errors import OptionError, PluginError, SpecdecError, out_of_memory
from specdec.jobs.grouping import neighbours
from specdec.jobs.options import JobOptions, make_job_options
from specdec.jobs.rows import GivenRow, ReadRow, RowReader
from specdec.request.request import Request
from specdec.request.seeds import seed_of_row
from specdec.results import GenerationResult

Answer = dict[str, Any]


@dataclass
class Costs:
    """What answers cost, added up.

    Attributes:
        prompt_tokens, new_tokens: of the rows that were decoded.
        target_forwards: verifications, each row's own counted.
        seconds: of decoding.
        errors: rows that could not be decoded.
        endings: rows by finish reason.
    """

    prompt_tokens: int = 0
    new_tokens: int = 0
    target_forwards: int = 0
    seconds: float = 0.0
    errors: int = 0
    endings: dict[str, int] = field(default_factory=dict)

    def count(self, result: GenerationResult) -> None:
        """Add one row's."""
        self.prompt_tokens += result.prompt_tokens
        self.new_tokens += result.stats.new_tokens
        self.target_forwards += result.stats.target_forwards
        reason = result.finish_reason or "unfinished"
        self.endings[reason] = self.endings.get(reason, 0) + 1

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what ``asdict`` made of others."""
        for name, value in other.items():
            if name != "endings":
                setattr(self, name, getattr(self, name) + value)
        for reason, rows in other["endings"].items():
            self.endings[reason] = self.endings.get(reason, 0) + rows


@dataclass(frozen=True)
class Batch:
    """Rows that are decoded together, or rows that cannot be decoded, and why not."""

    rows: tuple[ReadRow, ...] = ()
    refused: tuple[tuple[GivenRow, SpecdecError], ...] = ()

    @property
    def indices(self) -> list[int]:
        """Of its rows."""
        given = [*(row.given for row in self.rows), *(row for row, _ in self.refused)]
        return [row.index for row in given]


class Answerer:
    """Answers rows with an engine.

    Args:
        engine: what decodes.
        options: of the job.

    Raises:
        SpecdecError: settings of the job that are not allowed.
    """

    def __init__(self, engine: Engine, options: JobOptions) -> None:
        self._engine, self._options = engine, options
        self._read = RowReader(engine.request, options)
        self._read.check()

    def batches(self, rows: Iterable[GivenRow]) -> list[Batch]:
        """Rows dealt out to batches: a function of the rows and options alone.

        Those that differ in more than prompt, seed and bound on new tokens are in different
        batches. Neighbours have the same power of two as bound and prompts of like length, the
        longest first.
        """
        read: dict[str, list[ReadRow]] = {}
        refused = []
        for row in rows:
            try:
                ready = self._read(row)
            except SpecdecError as error:
                refused.append((row, error))
                continue
            read.setdefault(ready.like, []).append(ready)
        bounds = {
            "most": self._options.batch_size,
            "max_batch_tokens": self._options.max_batch_tokens,
        }
        batches = [Batch(refused=tuple(refused))] if refused else []
        for alike in read.values():
            alike.sort(key=_longest_first)
            batches += [
                Batch(tuple(group)) for group in neighbours(alike, lambda row: row.limit, **bounds)
            ]
        return batches

    def answer(
        self, batch: Batch, advance: Callable[[int], Any] = lambda rows: None
    ) -> tuple[list[Answer], Costs]:
        """The answers to a batch's rows, in its order, and what they cost.

        Args:
            advance: called with the number of rows that have ended since the last call.

        Raises:
            Exception: whatever is not the fault of a row.
        """
        costs = Costs(errors=len(batch.refused))
        began = time.perf_counter()
        answers = self._decoded(batch.rows, costs, advance) if batch.rows else []
        costs.seconds = time.perf_counter() - began
        answers += [self._read.failed(row, error) for row, error in batch.refused]
        advance(len(batch.refused))
        return answers, costs

    def _decoded(
        self, rows: Sequence[ReadRow], costs: Costs, advance: Callable[[int], Any]
    ) -> list[Answer]:
        told = EndedOnce(advance)
        try:
            results = self._engine.decode(
                Request.together([row.request for row in rows]), advance=told.advance
            )
        except Exception as error:
            if not _of_a_row(error):
                raise
            if len(rows) == 1:
                costs.errors += 1
                told.begin_anew()
                told.advance(1)
                return [self._read.failed(rows[0].given, error)]
            results = None
        if results is None:  # outside of the handler, which would keep the tensors alive
            told.begin_anew()
            return [answer for row in rows for answer in self._decoded([row], costs, told.advance)]
        for result in results:
            costs.count(result)
        return [self._answer(row, result) for row, result in zip(rows, results, strict=True)]

    def _answer(self, row: ReadRow, result: GenerationResult) -> Answer:
        answer: Answer = {
            **self._read.carried(row.given),
            "text": result.text,
            "finish_reason": result.finish_reason,
            "prompt_tokens": result.prompt_tokens,
            "new_tokens": result.stats.new_tokens,
        }
        if self._options.token_ids or result.text is None:
            answer["token_ids"] = result.token_ids
        return answer


def answer_rows(engine: Engine, rows: Iterable[Any], **options: Any) -> list[Answer]:
    """Answer rows of a list, in its order; one that cannot be decoded gets an error.

    Example:
        >>> answer_rows(engine, [{"prompt": "Once", "max_new_tokens": 8}, {"messages": chat}])

    Args:
        engine: what decodes.
        rows: objects as ``run_job`` reads them from a file.
        options: fields of :class:`~specdec.jobs.options.JobOptions`, but ``window``.

    Returns:
        For each row an object as ``run_job`` writes it.

    Raises:
        UnknownNameError: an option that does not exist.
        OptionError: no engine, no list of rows, or a value that is not allowed.
    """
    check_engine(engine)
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise OptionError(
            f"rows must be a list of objects, [{{'prompt': ...}}, ...], not {type(rows).__name__} "
            f"{rows!r:.80}"
        )
    if "window" in options:
        raise OptionError("window is for files: a list is sorted by length as a whole")
    checked = make_job_options(options)
    given = [
        GivenRow(index, fields, seed_of_row(checked.seed, index))
        for index, fields in enumerate(rows)
    ]
    return answers_in_order(Answerer(engine, checked), given)


def answers_in_order(answerer: Answerer, rows: Sequence[GivenRow]) -> list[Answer]:
    """The answers to rows that are numbered from 0, in their order."""
    found: dict[int, Answer] = {}
    for batch in answerer.batches(rows):
        answers, _ = answerer.answer(batch)
        found.update((answer["index"], answer) for answer in answers)
    return [found[row.index] for row in rows]


def _longest_first(row: ReadRow) -> tuple[int, int]:
    """Rows go on together for as long as their bounds are alike: a batch stays full."""
    new = row.limit - row.prompt_tokens
    return -new.bit_length(), -row.prompt_tokens


def _of_a_row(error: Exception) -> bool:
    """Whether an error may be the fault of some row of the batch."""
    return out_of_memory(error) or (
        isinstance(error, SpecdecError) and not isinstance(error, PluginError)
    )
