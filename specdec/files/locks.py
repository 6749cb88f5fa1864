"""Folders and files that one run writes at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from specdec.errors import OptionError

_LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, no other process on this machine has the folder; what killed ones left half written
    is removed first.

    Where the system has no ``fcntl`` there is no lock.

    Raises:
        OptionError: a folder that another run has.
    """
    with _held(folder / _LOCK) as held:
        if held is None:
            raise OptionError(
                f"another run is writing {folder}: wait until it has ended, or give another --work"
            )
        if held:
            _sweep(folder)
        yield


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """The same for one file, which is made, empty, if it is not there.

    Raises:
        OptionError: a file that another run has, or that cannot be written.
    """
    with _held(path) as held:
        if held is None:
            raise OptionError(
                f"another run is writing {path}: wait until it has ended, or give another file"
            )
        yield


@contextmanager
def _held(path: Path) -> Iterator[bool | None]:
    """Within, whether this process has the lock on a file: None where another one has it, False
    where the system has none."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise OptionError(f"{path} cannot be written: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield None
                return
            if _is_at(file, path):
                yield True
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether a path still leads to an open file: the run before may have put another there."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sweep(folder: Path) -> None:
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)
