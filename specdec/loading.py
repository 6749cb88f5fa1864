"""What a user calls a model, turned into a loaded target model and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from specdec.checkpoints import load_model, load_tokenizer, resolve_checkpoint
from specdec.errors import CheckpointError, OptionError, UnknownNameError
from specdec.models import EMBEDDED
from specdec.plugins import ModelAlias
from specdec.registry import Registry

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def find_alias(registry: Registry, model: str | Path | PreTrainedModel | None) -> ModelAlias | None:
    """The alias that ``model`` names; the embedded default for None.

    Raises:
        UnknownNameError: a bare name that is neither an alias, nor a folder, nor on the hub.
        OptionError: something else than a name, a path or a transformers model.
    """
    if isinstance(model, PreTrainedModel):
        return None
    if model is not None and not isinstance(model, (str, Path)):
        raise OptionError(
            f"model must be a name, a folder, a hub id or a transformers model, not "
            f"{type(model).__name__}"
        )
    name = EMBEDDED.name if model is None else str(model)
    if name not in registry.models and "/" not in name and not Path(name).exists():
        try:
            resolve_checkpoint(name, what="model")
        except CheckpointError as error:
            hint = f"A folder or hub id does as well, but {error}"
            raise UnknownNameError("model", name, registry.models, hint) from error
    return registry.models.get(name)


def load_target(
    alias: ModelAlias | None,
    model: str | Path | PreTrainedModel | None,
    dtype: torch.dtype | str | None,
    device: torch.device | str | None,
) -> tuple[str, PreTrainedModel, PreTrainedTokenizerBase | None]:
    """A name to report, the loaded model, and the tokenizer that lies beside it.

    Raises:
        CheckpointError: missing, corrupt or unsafe.
        UnknownNameError: a dtype that does not exist.
        OptionError: a device that is not available.
    """
    wanted = _dtype(dtype)
    if isinstance(model, PreTrainedModel):
        given: PreTrainedModel = model
        if isinstance(wanted, torch.dtype):
            given = given.to(wanted)
        if device is not None:
            given = given.to(_device(device))
        return given.config.name_or_path or type(given).__name__, given, None
    if wanted is None:
        wanted = _dtype(alias.dtype) if alias else "auto"
    folder = resolve_checkpoint(alias.model if alias else str(model), what="model")
    loaded = load_model(folder, dtype=wanted or "auto", device=_device(device))
    return alias.name if alias else str(model), loaded, load_tokenizer(folder)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | str | None:
    if dtype is None or isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    if dtype not in _DTYPES:
        raise UnknownNameError("dtype", dtype, _DTYPES)
    return _DTYPES[dtype]


def _device(device: torch.device | str | None) -> torch.device:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device={device!r} is not available here: {error}") from error
    return chosen
