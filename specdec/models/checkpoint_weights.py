"""Tensors of a checkpoint, from one file or shards; pickles are read as weights only."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specdec.errors import CheckpointError, first_line

_LOG = logging.getLogger(__name__)
_SAFETENSORS, _PICKLE = "model.safetensors", "pytorch_model.bin"
_INDEX = ".index.json"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: a missing file, or one that is no JSON object.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}: is it a checkpoint?") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is no JSON: {first_line(error)}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return fields


def read_weights(folder: Path, names: Sequence[str] = (_SAFETENSORS, _PICKLE)) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU.

    In the order of ``names``, each of them, then its shards (``model.safetensors.index.json``);
    where there are several, the log says which is read. Pickles are read with
    ``weights_only=True``, so that no code in them runs.

    Args:
        names: what the file may be called: ``model.safetensors`` or ``pytorch_model.bin``, unless a
            kind of checkpoint has names of its own. What does not end in ``.safetensors`` is read
            as a pickle.

    Raises:
        CheckpointError: no weights, a corrupt file, a shard that is missing or lies outside the
            folder, or a pickle that is more than weights.
    """
    places = [folder / f"{name}{end}" for name in names for end in ("", _INDEX)]
    found = [path for path in places if path.is_file()]
    if not found:
        raise CheckpointError(
            f"{folder} has no weights: one of {' or '.join(names)} is needed, or their shards with "
            f"an index ({names[0]}{_INDEX})"
        )
    path, *others = found
    if others:
        _LOG.info(
            "%s has %s and %s: the first is read",
            *(folder, path.name, ", ".join(each.name for each in others)),
        )
    return _read_shards(path) if path.name.endswith(_INDEX) else _read(path)


def _read_shards(index: Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files")
    found: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise CheckpointError(f"{index} names the file {file!r}: shards lie beside their index")
        if not (path := index.parent / file).is_file():
            raise CheckpointError(f"{index} names {file}, which is not there: is a shard missing?")
        found.update(_read(path))
    if missing := sorted(places.keys() - found.keys()):
        raise CheckpointError(f"{index} names tensors that no shard has: {listed(missing)}")
    return found


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is corrupt: {first_line(error)}") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it is no plain weights file and could run code when loaded. "
            "Ask its authors for safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is corrupt: {first_line(error)}") from error
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise CheckpointError(f"{path} holds something else than named tensors")
    return weights


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names for an error message: the first few, and how many there are."""
    keys = sorted(names)
    shown = ", ".join(keys[:most])
    return shown if len(keys) <= most else f"{shown}, ... ({len(keys)} in all)"
