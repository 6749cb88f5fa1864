"""Fingerprints of values, of weights and of files: equal where what they are of is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from specdec.models.placement import brought
from specdec.models.quantised import is_packed

_SAMPLED = 1024  # values of each weight that a fingerprint reads
# Of a file beyond the first number of bytes so many pieces of a mebibyte are read.
_WHOLE, _PIECES, _PIECE = 64 << 20, 64, 1 << 20


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
    """A fingerprint of a model's weights: their names, shapes, and up to 1024 values of each, of
    quantised ones multiplied out. Weights that are loaded when they are used are loaded, one at a
    time."""
    parts: list[Any] = []
    for name, weight in model.named_parameters():
        values = brought(model, name) if weight.is_meta else weight
        if is_packed(values):
            values = type(values).dequantize(values)
        flat = values.detach().flatten()
        step = max(1, len(flat) // _SAMPLED)
        parts += [name, list(weight.shape), flat[::step][:_SAMPLED].float()]
    return fingerprint(*parts)


def fingerprint_of_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """A fingerprint of how a tokenizer reads text and writes it: its vocabulary, rules and special
    tokens."""
    if tokenizer is None:
        return fingerprint(None)
    try:  # calls set truncation and padding
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        rules: Any = {**backend, "truncation": None, "padding": None}
    except Exception:  # none, or one with parts in Python
        rules = sorted((str(token), index) for token, index in tokenizer.get_vocab().items())
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return fingerprint([type(tokenizer).__name__, rules, special])


def fingerprint_of_files(place: Path) -> str:
    """A fingerprint of the files of a checkpoint, their names and what they hold: all of it, of
    files over 64 MiB their size and 64 MiB spread over them. Its card and pictures change nothing.
    Of a file that is a checkpoint by itself the name changes nothing either, nor does a folder's.
    """
    digest = hashlib.blake2b(digest_size=8)
    alone = place.is_file()
    files = [place] if alone else [path for path in place.iterdir() if path.is_file()]
    for path in sorted(path for path in files if path.suffix not in (".md", ".png")):
        digest.update(b"" if alone else path.name.encode() + b"\0")
        size = path.stat().st_size
        with path.open("rb") as file:
            if size > _WHOLE:
                digest.update(str(size).encode())
                for number in range(_PIECES):
                    file.seek((size - _PIECE) * number // (_PIECES - 1))
                    digest.update(file.read(_PIECE))
            else:
                while piece := file.read(_PIECE):
                    digest.update(piece)
    return digest.hexdigest()
