"""Names of the files and folders that a command writes, checked before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from specdec.errors import OptionError

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
