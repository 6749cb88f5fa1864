"""What a user calls a model, turned into a loaded target model and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from specdec.checkpoints import load_model, load_tokenizer, resolve_checkpoint
from specdec.errors import OptionError, UnknownNameError
from specdec.models import EMBEDDED
from specdec.plugins import ModelAlias
from specdec.registry import Registry

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_target(
    registry: Registry,
    model: str | Path | PreTrainedModel | None,
    dtype: torch.dtype | str | None,
    device: torch.device | str | None,
) -> tuple[ModelAlias | None, str, PreTrainedModel]:
    """The alias (if any), a name to report, and the loaded model."""
    if isinstance(dtype, str) and dtype != "auto":
        if dtype not in _DTYPES:
            raise UnknownNameError("dtype", dtype, _DTYPES)
        dtype = _DTYPES[dtype]
    if isinstance(model, PreTrainedModel):
        given: PreTrainedModel = model
        if dtype is not None and dtype != "auto":
            given = given.to(dtype)
        if device is not None:
            given = given.to(_device(device))
        return None, given.config.name_or_path or type(given).__name__, given
    if model is not None and not isinstance(model, (str, Path)):
        raise OptionError(
            f"model must be a name, a folder, a hub id or a transformers model, not "
            f"{type(model).__name__}"
        )
    name = EMBEDDED.name if model is None else str(model)
    alias = registry.models.get(name)
    if alias is None and "/" not in name and not Path(name).exists():
        raise UnknownNameError("model", name, registry.models, "A folder or hub id does as well")
    if dtype is None:
        dtype = "auto" if alias is None else _DTYPES.get(alias.dtype, "auto")
    loaded = load_model(alias.model if alias else name, dtype=dtype, device=_device(device))
    return alias, name, loaded


def _device(device: torch.device | str | None) -> torch.device:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device={device!r} is not available here: {error}") from error
    return chosen


def tokenizer_of(
    alias: ModelAlias | None, model: str | Path | PreTrainedModel | None
) -> PreTrainedTokenizerBase | None:
    if isinstance(model, PreTrainedModel):
        return None
    source = alias.model if alias else str(model)
    return load_tokenizer(resolve_checkpoint(source, what="model"))
