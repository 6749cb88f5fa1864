"""Reading checkpoints: folders and hub ids, safetensors first, pickles only as plain weights."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from specdec.errors import CheckpointError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def resolve_checkpoint(checkpoint: str | Path, *, what: str) -> Path:
    """The folder of a checkpoint; a hub id is downloaded (or found in the local cache).

    Args:
        checkpoint: a folder, or a hub id ``org/name`` or ``name``.
        what: how to name it in an error.

    Raises:
        CheckpointError: neither a folder nor something that the hub knows.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file: give the folder of the {what}")
    if str(checkpoint).count("/") > 1 or str(checkpoint).startswith(("/", ".", "~")):
        raise CheckpointError(
            f"there is no {what} at {str(checkpoint)!r}: give an existing folder or a hub id like "
            "'org/name'"
        )
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja"]
        return Path(snapshot_download(str(checkpoint), allow_patterns=patterns))
    except Exception as error:
        raise CheckpointError(
            f"there is no folder {str(checkpoint)!r}, and the hub did not give a {what} of that "
            f"name: {_first_line(error)}"
        ) from error


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
        raise CheckpointError(f"{path} is no JSON: {_first_line(error)}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return fields


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a single-file checkpoint, on the CPU.

    ``model.safetensors`` is preferred; ``pytorch_model.bin`` is read with ``weights_only=True``, so
    that no code in it runs.

    Raises:
        CheckpointError: no weights, a corrupt file, or a pickle that is more than weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (path := folder / "model.safetensors").is_file():
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is corrupt: {_first_line(error)}") from error
    if (path := folder / "pytorch_model.bin").is_file():
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path} was refused: it is no plain weights file and could run code when loaded. "
                "Ask its authors for safetensors"
            ) from error
        except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} is corrupt: {_first_line(error)}") from error
        if not isinstance(weights, dict) or not all(
            isinstance(t, Tensor) for t in weights.values()
        ):
            raise CheckpointError(f"{path} holds something else than named tensors")
        return weights
    raise CheckpointError(f"{folder} has no weights: one of {' or '.join(_WEIGHTS)} is needed")


def load_model(
    checkpoint: str | Path, *, dtype: torch.dtype | str, device: torch.device | str
) -> PreTrainedModel:
    """A causal language model from a folder or a hub id; never runs code that comes with it.

    Raises:
        CheckpointError: not found, corrupt, or an architecture that transformers does not have.
    """
    from transformers import AutoModelForCausalLM

    folder = resolve_checkpoint(checkpoint, what="model")
    read_json(folder / "config.json")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{folder} cannot be loaded: {_first_line(error)}") from error
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a model's folder; None if it has none."""
    from transformers import AutoTokenizer

    if not any((folder / n).exists() for n in ("tokenizer.json", "tokenizer_config.json")):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise CheckpointError(
            f"the tokenizer in {folder} cannot be loaded: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
