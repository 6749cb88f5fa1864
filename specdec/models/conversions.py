"""Kept conversions: what was made of a model file, as a checkpoint in a cache folder.

Each lies in a folder named after the file's content and the version of transformers that read it.
It is written beside its place and renamed, so that it is there whole or not at all, and never
changed: any number of processes may read it. Any folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import transformers
from huggingface_hub import constants

from specdec.errors import CheckpointError, first_line, warn

FOLDER_VARIABLE = "SPECDEC_CACHE"

_MANIFEST = "conversion.json"
_UNFINISHED = ".unfinished-"
_ABANDONED = 3600  # seconds after which what another process has begun counts as given up


def cache_folder() -> Path:
    """Where conversions are kept.

    ``$SPECDEC_CACHE``, else among the assets of the Hugging Face cache, which ``HF_HOME`` and
    ``XDG_CACHE_HOME`` move: ``~/.cache/huggingface/assets/specdec/gguf``.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    folder = Path(given) if given else Path(constants.HF_ASSETS_CACHE) / "specdec"
    return folder.expanduser() / "gguf"


def kept(file: Path) -> Path | None:
    """The folder of the file's conversion, if there is one and none of its files is missing or cut
    short."""
    folder = _place(file)
    try:
        sizes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return folder if whole else None


def keep(file: Path, save: Callable[[Path], object]) -> Path | None:
    """Write the file's conversion and return its folder; None, with a warning, if it cannot be
    written.

    Args:
        save: writes the checkpoint into the folder that it is given.
    """
    place = _place(file)
    beside = place.with_name(f"{_UNFINISHED}{place.name}-{secrets.token_hex(4)}")
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(beside.parent)
        beside.mkdir()
        save(beside)
        _seal(beside, file)
        if place.exists() and kept(file) is None:
            damaged = beside.with_name(f"{beside.name}-damaged")
            place.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        try:
            beside.rename(place)
        except OSError:
            if kept(file) is None:  # else another process was first
                raise
        return place
    except Exception as error:  # whatever it is, the model itself is there
        warn(
            f"what was made of {file} cannot be kept in {place.parent} ({first_line(error)}), so "
            f"each start makes it again. {FOLDER_VARIABLE} names another folder"
        )
        return None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _place(file: Path) -> Path:
    """The folder that is the file's, there or not.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        found = file.stat()
        digest = _digest(file.resolve(), found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {first_line(error)}") from error
    return cache_folder() / f"{digest[:32]}-transformers-{transformers.__version__}"


@lru_cache(maxsize=16)
def _digest(file: Path, size: int, modified: int) -> str:
    """SHA-256 of the file's content; size and time tell another content within this process."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _seal(folder: Path, file: Path) -> None:
    """Get the files onto the disk, then list them with their sizes."""
    sizes = {}
    for path in sorted(folder.iterdir()):
        _sync(path)
        sizes[path.name] = path.stat().st_size
    manifest = folder / _MANIFEST
    manifest.write_text(json.dumps({"source": file.name, "files": sizes}), encoding="utf-8")
    _sync(manifest)


def _sync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _clear_abandoned(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for each in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):  # it may go while this looks
            if time.time() - each.stat().st_mtime > _ABANDONED:
                shutil.rmtree(each)
