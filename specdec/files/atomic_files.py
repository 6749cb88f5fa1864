"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from specdec.errors import CheckpointError, OptionError, first_line, out_of_memory

# torch and safetensors have errors of their own for a full disk.
_UNWRITTEN = (OSError, RuntimeError, SafetensorError)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then put it there by renaming.

    Raises:
        OptionError: a place that cannot be written, or a full disk.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(fresh)
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except _UNWRITTEN as error:
        raise unwritten(path, error) from error
    finally:
        with suppress(OSError):  # its folder may be a file
            fresh.unlink()


def sweep(path: Path) -> None:
    """Remove what killed runs left of ``path``, half written."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.name.rpartition(".")[2].isdecimal():
            left.unlink(missing_ok=True)


def unwritten(path: Path, error: Exception) -> Exception:
    """What is raised for a file that cannot be written; a lack of memory stays what it is."""
    if out_of_memory(error):
        return error
    reason = getattr(error, "strerror", None) or first_line(error)
    return OptionError(f"{path} cannot be written: {reason}")


def read_manifest(path: Path) -> dict[str, Any]:
    """The JSON object that a folder is described by.

    Raises:
        CheckpointError: a file that cannot be read, or with something else in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({first_line(error)}): remove {path.parent} to begin anew"
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is no JSON object: remove {path.parent} to begin anew")
    return found


def add_seconds(path: Path, seconds: float) -> float:
    """Add to the seconds that a file keeps, and return them all."""
    try:
        before = float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = 0.0
    if seconds:
        write_atomically(
            path, lambda fresh: fresh.write_text(str(before + seconds), encoding="utf-8")
        )
    return before + seconds


def write_json(path: Path, value: object) -> None:
    """Indented JSON, written whole."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))


def replace_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a fresh folder, then put it in the place of ``path`` by renaming.

    Raises:
        OptionError: a place that cannot be written, or a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from error
    old = fresh.with_name(fresh.name + "-old")
    try:
        fresh.chmod(0o755)
        write(fresh)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
    except _UNWRITTEN as error:
        raise unwritten(path, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
