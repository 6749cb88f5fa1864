"""Kept conversions: what was made of a model file, as a checkpoint in a cache folder.

Each lies in a folder named after the file's content and the version of transformers that read it.
It is written beside its place and renamed, so that it is there whole or not at all, and never
changed: any number of processes may read it. Any folder may be deleted at any time. A folder of
another user is not read.
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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import transformers
from huggingface_hub import constants

from specdec.errors import CheckpointError, first_line, warn

FOLDER_VARIABLE = "SPECDEC_CACHE"

_MANIFEST = "conversion.json"
_CONFIG, _WEIGHTS = "config.json", ".safetensors"  # without these it is no model
_UNFINISHED = ".unfinished-"
_ABANDONED = 3600  # seconds after which what another process has begun counts as given up


@dataclass(frozen=True)
class Contents:
    """A file at one moment: another file at its path, or another content, has others.

    Attributes:
        digest: SHA-256 of the content.
    """

    digest: str
    size: int
    modified: int
    inode: int


def contents(file: Path) -> Contents:
    """What the file holds now.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        stamp = _stamp(file.stat())
        return Contents(_digest(file.resolve(), *stamp), *stamp)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {first_line(error)}") from error


def cache_folder() -> Path:
    """Where conversions are kept.

    ``$SPECDEC_CACHE``, else among the assets of the Hugging Face cache, which ``HF_HOME`` and
    ``XDG_CACHE_HOME`` move: ``~/.cache/huggingface/assets/specdec/gguf``.

    Raises:
        RuntimeError: it begins with ``~``, and there is no such home folder.
    """
    given = os.environ.get(FOLDER_VARIABLE)
    folder = Path(given) if given else Path(constants.HF_ASSETS_CACHE) / "specdec"
    return folder.expanduser() / "gguf"


def kept(file: Path) -> Path | None:
    """The folder of the file's conversion, if there is one of this user's and none of its files is
    missing or cut short.

    Raises:
        CheckpointError: the file cannot be read.
    """
    found = contents(file)
    try:
        place = _place(found)
    except RuntimeError:  # of cache_folder; keep tells it
        return None
    return place if _usable(place) else None


def keep(file: Path, converted: Contents, save: Callable[[Path], object]) -> Path | None:
    """Write the file's conversion and return its folder; None, with a warning, if it cannot be
    written or the file is no longer the one that was converted.

    Args:
        converted: the file's :func:`contents`, taken before the conversion began.
        save: writes the checkpoint into the folder that it is given.
    """
    if not _still(file, converted):
        warn(f"{file} changed while it was converted, so what was made of it is not kept")
        return None
    beside, where = None, ""
    try:
        place = _place(converted)
        where = f" in {place.parent}"
        _make_folder(place.parent)
        _clear_abandoned(place.parent)
        beside = place.with_name(f"{_UNFINISHED}{place.name}-{secrets.token_hex(4)}")
        beside.mkdir(mode=0o700)
        save(beside)
        _seal(beside, file)
        _put(beside, place)
        return place
    except Exception as error:  # whatever it is, the model itself is there
        warn(
            f"what was made of {file} cannot be kept{where} ({first_line(error)}), so each start "
            f"makes it again. {FOLDER_VARIABLE} names another folder"
        )
        return None
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _put(beside: Path, place: Path) -> None:
    """Rename a new conversion to its place, unless another process has put a whole one there.

    Raises:
        OSError: it cannot be renamed, or what is there belongs to another user.
    """
    if os.path.lexists(place) and not _own(place):
        raise PermissionError(f"{place} belongs to another user")
    if os.path.lexists(place) and not _whole(place):
        moved = beside.with_name(f"{beside.name}-damaged")
        with suppress(FileNotFoundError):  # another process has moved it away
            place.rename(moved)
        if _whole(moved):  # another process has put a new one there since
            with suppress(OSError):  # and another one again
                moved.rename(place)
        shutil.rmtree(moved, ignore_errors=True)
    try:
        beside.rename(place)
    except OSError:
        if not _usable(place):  # else another process was first
            raise


def _place(found: Contents) -> Path:
    """The folder of a file's conversion, there or not."""
    return cache_folder() / f"{found.digest[:32]}-transformers-{transformers.__version__}"


def _usable(folder: Path) -> bool:
    return _own(folder) and _whole(folder)


def _own(folder: Path) -> bool:
    """Whether the folder is there and, where files have owners, is this user's."""
    try:
        owners = {folder.lstat().st_uid, folder.stat().st_uid}
    except OSError:
        return False
    return not hasattr(os, "getuid") or owners == {os.getuid()}


def _whole(folder: Path) -> bool:
    """Whether the folder holds a model and all files have the sizes with which they were
    written."""
    try:
        sizes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        model = _CONFIG in sizes and any(name.endswith(_WEIGHTS) for name in sizes)
        return model and all((folder / name).stat().st_size == n for name, n in sizes.items())
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return False


def _make_folder(folder: Path) -> None:
    """Make the cache folder, and the one it lies in, for this user alone."""
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)


def _still(file: Path, before: Contents) -> bool:
    try:
        return contents(file) == before
    except CheckpointError:
        return False


def _stamp(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ino


@lru_cache(maxsize=16)
def _digest(file: Path, size: int, modified: int, inode: int) -> str:
    """SHA-256 of the file's content; the rest tells another content within this process.

    Raises:
        OSError: the file cannot be read, or is another one by now.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
        if _stamp(os.fstat(stream.fileno())) != (size, modified, inode):
            raise OSError("it changed while it was read")
    return digest.hexdigest()


def _seal(folder: Path, file: Path) -> None:
    """Get the files onto the disk, then list them with their sizes.

    Raises:
        OSError: a file cannot be written, or the folder holds no model.
    """
    sizes = {}
    for path in sorted(folder.iterdir()):
        _sync(path)
        sizes[path.name] = path.stat().st_size
    manifest = folder / _MANIFEST
    manifest.write_text(json.dumps({"source": file.name, "files": sizes}), encoding="utf-8")
    _sync(manifest)
    if not _whole(folder):
        raise OSError("what was written is no whole model")


def _sync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _clear_abandoned(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for each in folder.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):  # it may go while this looks
            if time.time() - each.stat().st_mtime > _ABANDONED:
                shutil.rmtree(each)
