"""The file of prompts of a job: JSON lines, read a window at a time."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from specdec.errors import OptionError, PromptError
from specdec.files.json_objects import RepeatedNameError, named_once
from specdec.jobs.rows import GivenRow
from specdec.request.seeds import seed_of_row

# Bytes of the largest file that is looked at as one JSON document.
_DOCUMENT = 1 << 26


class PromptFile:
    """A file with a row a line. Blank lines are no rows.

    Args:
        path: of the file. It is read once from end to end, to count and to fingerprint it.
        seed: of the rows that have none of their own.
        window: how many rows are read at a time.

    Attributes:
        rows: how many.
        fingerprint: of all that is in it.

    Raises:
        OptionError: a file that is not there or cannot be read, one without rows, or one that is a
            single JSON document.
    """

    def __init__(self, path: Path, seed: int, window: int) -> None:
        self.path, self._seed, self._window = path, seed, window
        if not path.is_file():
            raise OptionError(f"there is no file {path}: give a file with an object a line")
        try:
            self.rows, self.fingerprint, self._windows = self._read()
            document = self._document()
        except OSError as error:
            raise OptionError(f"{path} cannot be read: {error.strerror}") from error
        if not self.rows:
            raise OptionError(f"{path} has no rows: write an object with a prompt on each line")
        if document:
            kind, query = ("array", ".[]") if document == "[" else ("object", ".")
            raise OptionError(
                f"{path} is one JSON {kind}: a job reads JSON Lines, an object a line. This writes "
                f"such a file: jq -c '{query}' {shlex.quote(str(path))} > prompts.jsonl"
            )

    def _read(self) -> tuple[int, str, list[str]]:
        """How many rows there are, a fingerprint of the file, and of each window."""
        rows, whole, windows = 0, hashlib.blake2b(digest_size=8), []
        with self.path.open("rb") as file:
            for line in file:
                whole.update(line)
                if row := line.strip():
                    if rows % self._window == 0:
                        windows.append(hashlib.blake2b(digest_size=8))
                    windows[-1].update(row + b"\n")
                    rows += 1
        return rows, whole.hexdigest(), [each.hexdigest() for each in windows]

    def _document(self) -> str:
        """What the file begins with if it is one JSON array, or one object of several lines; empty
        for a file of lines."""
        with self.path.open("rb") as file:
            first = next((line.strip() for line in file if line.strip()), b"")
        begins = first[:1].decode("latin-1")
        if begins not in ("[", "{"):
            return ""
        alone = _is_json(first)
        if alone:
            return begins if begins == "[" and self.rows == 1 else ""
        small = self.path.stat().st_size <= _DOCUMENT  # nobody writes a larger one by hand
        return begins if self.rows > 1 and small and _is_json(self.path.read_bytes()) else ""

    def windows(self) -> Iterator[list[tuple[int, int, bytes]]]:
        """The rows, a window at a time: index, number of the line, and the line.

        Raises:
            OptionError: the file has other rows there than when it was read first.
        """
        with self.path.open("rb") as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            rows = ((index, number, line) for index, (number, line) in enumerate(lines))
            for start, known in zip(range(0, self.rows, self._window), self._windows, strict=True):
                window = list(islice(rows, min(self._window, self.rows - start)))
                digest = hashlib.blake2b(digest_size=8)
                for _, _, line in window:
                    digest.update(line.strip() + b"\n")
                if digest.hexdigest() != known:
                    raise OptionError(
                        f"{self.path} was changed while the job ran, from row {start} on: the "
                        "answers so far are kept. Give it back what it had, and run the job again"
                    )
                yield window

    @property
    def changed(self) -> bool:
        """Whether there is another file now."""
        return self.path.is_file() and self._read()[1] != self.fingerprint

    def parse(self, index: int, number: int, line: bytes) -> GivenRow:
        """A row from its line."""
        fields: Any
        try:
            fields = json.loads(
                line, parse_constant=_no_json, parse_float=_finite, object_pairs_hook=named_once
            )
        except RepeatedNameError as error:
            fields = PromptError(f"of one object, {error}")
        except (ValueError, RecursionError) as error:
            fields = PromptError(f"the line is no JSON: {_reason(error)}")
        return GivenRow(index, fields, seed_of_row(self._seed, index), f"line {number}: ")


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"{digits:.20} is too large a number")
    return number


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8, at byte {error.start + 1}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
