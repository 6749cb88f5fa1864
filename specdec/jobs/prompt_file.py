"""The file of prompts of a job: JSON lines, read a window at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from specdec.errors import OptionError, PromptError
from specdec.jobs.rows import GivenRow
from specdec.request.seeds import seed_of_row


class PromptFile:
    """A file with a row a line. Blank lines are no rows.

    Args:
        path: of the file. It is read once from end to end, to count and to fingerprint it.
        seed: of the rows that have none of their own.

    Attributes:
        rows: how many.
        fingerprint: of all that is in it.

    Raises:
        OptionError: a file that is not there or cannot be read, or one without rows.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self._seed = path, seed
        if not path.is_file():
            raise OptionError(f"there is no file {path}: give a file with an object a line")
        self.rows, digest = 0, hashlib.blake2b(digest_size=8)
        try:
            with path.open("rb") as file:
                for line in file:
                    digest.update(line)
                    self.rows += bool(line.strip())
        except OSError as error:
            raise OptionError(f"{path} cannot be read: {error.strerror}") from error
        if not self.rows:
            raise OptionError(f"{path} has no rows: write an object with a prompt on each line")
        self.fingerprint = digest.hexdigest()

    def windows(self, size: int) -> Iterator[list[tuple[int, int, bytes]]]:
        """The rows, ``size`` at a time: index, number of the line, and the line."""
        with self._path.open("rb") as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            rows = ((index, number, line) for index, (number, line) in enumerate(lines))
            while window := list(islice(rows, size)):
                yield window

    def parse(self, index: int, number: int, line: bytes) -> GivenRow:
        """A row from its line."""
        fields: Any
        try:
            fields = json.loads(line, parse_constant=_no_json)
        except (ValueError, RecursionError) as error:
            fields = PromptError(f"the line is no JSON: {_reason(error)}")
        return GivenRow(index, fields, seed_of_row(self._seed, index), f"line {number}: ")


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8, at byte {error.start + 1}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
