"""Names of the files and folders that a command writes, checked before it begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from specdec.errors import OptionError, first_line

STDOUT = Path("-")


def check_named(flag: str, path: Path | None, example: str) -> None:
    """Refuse ``-`` where nothing is written to standard output.

    Args:
        flag: or the name of the argument.
        example: of a name.

    Raises:
        OptionError: it is ``-``.
    """
    if path == STDOUT:
        raise OptionError(
            f"{flag} -: this is not written to standard output; give a name, such as {example}"
        )


def check_file(flag: str, path: Path, example: str) -> None:
    """Refuse what could not be written, before there is anything to write.

    Args:
        flag: or the name of the argument.
        example: of a name.

    Raises:
        OptionError: it can be no file.
    """
    check_named(flag, path, example)
    with written(flag, path):
        if path.is_dir():
            raise OptionError(f"{flag} {path} is a folder: give the name of a file in it")
        if not path.parent.is_dir():
            raise OptionError(f"{flag} {path}: there is no folder {path.parent}, make it first")
        new = not path.exists()
        if new or path.is_file():  # to open a pipe would tell its reader that this was all
            path.open("a").close()
        if new:
            Path(os.path.realpath(path)).unlink()  # a link to it stays


@contextmanager
def written(flag: str, path: Path) -> Iterator[None]:
    """Within, an error of the file system is one of the place that was given.

    Raises:
        OptionError: there was one.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        place = error.filename or path  # of a folder, which file in it
        raise OptionError(
            f"{flag} {place} cannot be written ({reason}): give another place"
        ) from error


def check_apart(files: Iterable[tuple[str, Path | None]]) -> None:
    """Refuse one file for two purposes.

    Args:
        files: each with its flag or the name of its argument; None for those not given.

    Raises:
        OptionError: two are the same file.
    """
    found: dict[Path, str] = {}
    for flag, path in files:
        if path is None or path == STDOUT:
            continue
        other = found.setdefault(path.resolve(), flag)
        if other != flag:
            raise OptionError(
                f"{other} and {flag} are the same file, {path}: give each a file of its own"
            )
