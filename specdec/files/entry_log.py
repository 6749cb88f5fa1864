"""A log that survives kills: what it is about, then one entry a line, each on disk once added."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from specdec.errors import OptionError
from specdec.files.atomic_files import unwritten, write_atomically

_SHOWN = 5  # differences that an error names
# What Python writes of an object that says nothing of itself: where it lies, in this process.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class EntryLog:
    """A file of JSON lines; a line that was cut off when it was written is removed.

    Args:
        path: of the file; made if there is none.
        about: what its entries have in common, as :func:`in_json` writes it.
        kind: what writes it, e.g. ``"benchmark"``; the key of the first line.
        holds: what an entry is, for errors, e.g. ``"runs"``.
        instead: what to give in place of a file that holds something else.

    Raises:
        OptionError: a file of another run of that kind, with what differs; one with something else
            in it; none that this could write; or something in ``about`` that no later run could
            compare.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        *,
        kind: str,
        holds: str,
        instead: str = "another file",
    ) -> None:
        self.path, self._kind, self._holds, self._instead = path, kind, holds, instead
        own = in_json(about)
        first = self._first = _line({kind: own})
        self._start = len(first)
        try:
            whole, size = _whole_lines(path) if path.exists() else (0, 0)
            with path.open("rb") if size else open(os.devnull, "rb") as file:
                found = file.readline()
        except OSError as error:
            raise OptionError(f"{path} cannot be read: {error}") from error
        if not whole and first.startswith(found):  # empty, or cut off at once
            self._write(first, "wb")
            return
        self._check(found, own)
        self._first, self._start = found, len(found)
        if whole < size:
            os.truncate(path, whole)

    def _check(self, line: bytes, own: Mapping[str, Any]) -> None:
        try:
            found = json.loads(line)[self._kind]
            other = [
                f"there {name} is {there!r:.80}, here {here!r:.80}"
                for name, there, here in _differences(found, own)
            ]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self.foreign() from error
        if other:
            more = f"; and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
            raise OptionError(
                f"{self.path} holds {self._holds} of another {self._kind}: "
                f"{'; '.join(other[:_SHOWN])}{more}. Give what was given there to go on with it, "
                f"or {self._instead}"
            )

    def foreign(self) -> OptionError:
        """The error for a file with something else in it."""
        return OptionError(
            f"{self.path} holds no {self._holds} of a {self._kind}: give {self._instead}"
        )

    def entries(self) -> Iterator[tuple[int, Any]]:
        """Where each entry begins, in bytes, and what it is.

        Raises:
            OptionError: a line that is no JSON.
        """
        with self.path.open("rb") as file:
            place = file.seek(self._start)
            for line in file:
                yield place, self._parsed(line)
                place += len(line)

    def read(self, places: Iterable[int]) -> Iterator[Any]:
        """The entries that begin at some places."""
        with self.path.open("rb") as file:
            for place in places:
                file.seek(place)
                yield self._parsed(file.readline())

    def add(self, entry: Any) -> int:
        """Keep an entry, and return where it begins.

        Raises:
            OptionError: a full disk.
        """
        return self._write(_line(entry), "ab")

    def clear(self) -> None:
        """Remove all entries."""
        os.truncate(self.path, self._start)

    def replace(self, entries: Iterable[Any]) -> None:
        """Other entries in the place of all, at once or not at all.

        Raises:
            OptionError: a full disk.
        """
        lines = [self._first, *map(_line, entries)]
        write_atomically(self.path, lambda fresh: fresh.write_bytes(b"".join(lines)))

    def _parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            raise self.foreign() from error

    def _write(self, line: bytes, mode: str) -> int:
        try:
            with self.path.open(mode) as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                return file.tell() - len(line)
        except OSError as error:
            raise unwritten(self.path, error) from error


def in_json(value: Any, *, compared: bool = True) -> Any:
    """A value as JSON has it: names as strings, tuples, tensors and arrays as lists, functions by
    module and name, and what ``str`` makes of anything else.

    Args:
        compared: whether a later run is to know it again by that.

    Raises:
        OptionError: an object whose text is where it lies in memory, another place in every run,
            and it is compared.
    """
    if isinstance(value, Mapping):
        return {str(name): in_json(each, compared=compared) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [in_json(each, compared=compared) for each in value]
    if hasattr(value, "tolist"):
        return in_json(value.tolist(), compared=compared)
    if value is None or isinstance(value, str | int | float):
        return value
    if inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    if (known := without_address(value)) != (text := str(value)) and compared:
        raise OptionError(
            f"a {type(value).__name__} says of itself where it lies in memory ({text:.80}), by "
            "which a later run could not know it again: give text, numbers, lists or mappings in "
            "its place, or its class a __str__ that says what it is"
        )
    return known


def without_address(value: Any) -> str:
    """What ``str`` makes of a value, without where objects lie in memory."""
    return _ADDRESS.sub("", str(value))


def _line(entry: Any) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _whole_lines(path: Path) -> tuple[int, int]:
    """The bytes of the lines that end, and those of the file."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            begin = max(0, end - (1 << 16))
            if (found := _last_break(file, begin, end)) is not None:
                return found, size
            end = begin
    return 0, size


def _last_break(file: BinaryIO, begin: int, end: int) -> int | None:
    """Where the last line break between two places ends."""
    file.seek(begin)
    found = file.read(end - begin).rfind(b"\n")
    return None if found < 0 else begin + found + 1


def _differences(
    there: Mapping[str, Any], here: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """What two runs are about and differ in: a name, or one within it, and both values."""
    for name in here:
        one, other = there.get(name), here[name]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            for inner in {**one, **other}:
                if one.get(inner) != other.get(inner):
                    yield f"{name}.{inner}", one.get(inner), other.get(inner)
        elif one != other:
            yield name, one, other
