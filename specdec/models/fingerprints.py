"""Fingerprints of values, of weights and of files: equal where what they are of is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_SAMPLED = 1024  # values of each weight that a fingerprint reads


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits of a hash of JSON values and tensors: equal where all parts are."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(str((part.dtype, tuple(part.shape))).encode())
            digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def fingerprint_of_model(model: nn.Module) -> str:
    """A fingerprint of a model's weights: their names, shapes, and up to 1024 values of each."""
    parts: list[Any] = []
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        step = max(1, len(flat) // _SAMPLED)
        parts += [name, list(weight.shape), flat[::step][:_SAMPLED].float()]
    return fingerprint(*parts)


def fingerprint_of_files(folder: Path) -> str:
    """A fingerprint of the files of a checkpoint: their names and all that they hold."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
