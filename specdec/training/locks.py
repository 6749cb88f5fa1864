"""A folder that one run writes at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OptionError(
                f"another run is writing {folder}: wait until it has ended, or give another --work"
            ) from error
        _sweep(folder)
        yield


def _sweep(folder: Path) -> None:
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)
