"""Loading of the target model and its tokenizer, from an alias, a path, a hub id or a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import is_accelerate_available

from specdec.booleans import check_bools
from specdec.errors import CheckpointError, OptionError, UnknownNameError, first_line
from specdec.models.checkpoints import load_model, load_tokenizer, resolve_model
from specdec.models.loaded_model import check_suitable, own_copy, unwrapped
from specdec.models.ranks import TORCHRUN, in_several_processes
from specdec.plugin.components import ModelAlias
from specdec.plugin.embedded_model import EMBEDDED
from specdec.plugin.registry import Registry

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# Those of transformers' device maps that it makes itself.
_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def find_alias(registry: Registry, model: str | Path | nn.Module | None) -> ModelAlias | None:
    """The alias whose drafters and options go with ``model``: the one that it names (None is the
    embedded default), or the one of the hub id that it is or, loaded, has in its config.

    Raises:
        UnknownNameError: a bare name that is no alias, no folder or file, and not on the hub.
    """
    if model is None or isinstance(model, (str, Path)):
        name = EMBEDDED.name if model is None else str(model)
        if name in registry.models:
            return registry.models[name]
        if "/" not in name and not Path(name).exists():
            try:
                resolve_model(name)
            except CheckpointError as error:
                hint = f"A folder or hub id does as well, or a .gguf file, but {error}"
                raise UnknownNameError("model", name, registry.models, hint) from error
    else:
        name = getattr(getattr(model, "config", None), "name_or_path", "")
    found = next((alias for alias in registry.models.values() if alias.model == name), None)
    return None if found and Path(name).exists() else found  # a folder may hold anything


def is_named(alias: ModelAlias | None, model: str | Path | nn.Module | None) -> bool:
    """Whether ``model`` is the name of the alias that was found for it, which then says what is
    loaded; otherwise ``model`` does, and the alias only knows of drafters for it."""
    if alias is None or isinstance(model, nn.Module):
        return False
    return model is None or str(model) == alias.name


def find_model(
    alias: ModelAlias | None, model: str | Path | None, *, trust_remote_code: bool = False
) -> Path:
    """The folder or GGUF file that holds a model, given the alias that was found for it.

    Raises:
        CheckpointError: there is none.
    """
    source: str | Path = str(model)
    if alias is not None and is_named(alias, model):
        source = alias.find() if alias.find else alias.model
    return resolve_model(source, trust_remote_code=trust_remote_code)


def check_tokenizer(tokenizer: object) -> None:
    """Refuse what is no tokenizer.

    Raises:
        OptionError: a name, a processor or another object.
    """
    if tokenizer is None or isinstance(tokenizer, PreTrainedTokenizerBase):
        return
    if callable(tokenizer) and all(hasattr(tokenizer, n) for n in ("decode", "all_special_ids")):
        return
    hint = "load it with AutoTokenizer.from_pretrained(...)"
    if isinstance(getattr(tokenizer, "tokenizer", None), PreTrainedTokenizerBase):
        hint = "give its .tokenizer"
    raise OptionError(
        f"tokenizer must be a transformers tokenizer, not {type(tokenizer).__name__} "
        f"{tokenizer!r:.80}: {hint}"
    )


def load_target(
    alias: ModelAlias | None,
    model: str | Path | nn.Module | None,
    dtype: torch.dtype | str | None,
    device: torch.device | str | None,
    *,
    device_map: str | Mapping[str, Any] | None = None,
    tensor_parallel: bool = False,
    trust_remote_code: bool = False,
) -> tuple[str, PreTrainedModel, PreTrainedTokenizerBase | None]:
    """A name to report, the loaded model, and the tokenizer that lies beside it.

    A model that was given is not changed: what comes back is a copy on its weights
    (:func:`~specdec.models.loaded_model.own_copy`).

    Args:
        alias: what :func:`find_alias` found for ``model``.

    Raises:
        CheckpointError: missing, corrupt, incomplete or unsafe.
        UnknownNameError: a dtype that does not exist.
        OptionError: something else than a name, a path or a transformers model, a device that is
            not available, or a placement that goes with neither the model nor this process.
        UnsupportedModelError: no causal language model.
    """
    check_bools(tensor_parallel=tensor_parallel)
    wanted = _dtype(dtype)
    placement = _placement(model, device, device_map, tensor_parallel)
    if model is not None and not isinstance(model, (str, Path)):
        given = unwrapped(model)
        check_suitable(given)
        own = own_copy(
            given,
            wanted if isinstance(wanted, torch.dtype) else None,
            None if device is None else _device(device),
        )
        return given.config.name_or_path or type(given).__name__, own, None
    named = alias if is_named(alias, model) else None
    if wanted is None:
        wanted = _dtype(named.dtype) if named else "auto"
    place = find_model(named, model, trust_remote_code=trust_remote_code)
    loaded = load_model(
        place,
        dtype=wanted or "auto",
        device=None if placement else _device(device),
        placement=placement,
        trust_remote_code=trust_remote_code,
    )
    check_suitable(loaded)
    if isinstance(device_map, Mapping):
        _check_modules(device_map, loaded)
    tokenizer = load_tokenizer(place, trust_remote_code=trust_remote_code)
    return named.name if named else str(model), loaded, tokenizer


def _placement(
    model: object,
    device: torch.device | str | None,
    device_map: str | Mapping[str, Any] | None,
    tensor_parallel: bool,
) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that lay a model out over several devices; none for one
    device."""
    asked = {"device_map": device_map is not None, "tensor_parallel": tensor_parallel}
    if not (names := [name for name, wanted in asked.items() if wanted]):
        return {}
    if len(names := ["device"] * (device is not None) + names) > 1:
        raise OptionError(f"{' and '.join(names)} each say where the model goes: give one of them")
    (name,) = names
    if model is not None and not isinstance(model, (str, Path)):
        raise OptionError(
            f"{name} is for a model that the engine loads, and the one given is loaded: leave it "
            "out, or give the model's name or folder"
        )
    if tensor_parallel and not in_several_processes():
        raise OptionError(
            "tensor_parallel=True shards a model over several processes, and this is the only one. "
            f"Start one for each device: {TORCHRUN} script.py"
        )
    if not is_accelerate_available():
        raise OptionError(f"{name} needs accelerate: pip install accelerate")
    if tensor_parallel:
        from transformers.distributed import DistributedConfig

        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    places: list[Any] = [device_map]
    known: tuple[str, ...] = _MAPS
    if isinstance(device_map, Mapping) and device_map:
        places, known = [*device_map.values()], ("disk",)
    for place in places:
        if place in known:
            continue
        try:
            _device(place)
        except OptionError as error:
            raise OptionError(
                f"device_map={device_map!r:.80}: give one of {', '.join(_MAPS)}, a dict from "
                f"modules to devices or disk, or one device ({first_line(error)})"
            ) from error
    return {"device_map": device_map}


def _check_modules(device_map: Mapping[str, Any], model: PreTrainedModel) -> None:
    names = {name for name, _ in (*model.named_modules(), *model.named_parameters())}
    if unknown := sorted(device_map.keys() - names):
        raise OptionError(
            f"device_map names {unknown[0]!r}, which the model does not have: give names such as "
            f"{', '.join(list(dict(model.named_children()))[:3])}, or '' for all of it"
        )


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | str | None:
    if dtype is None or dtype == "auto" or dtype in _DTYPES.values():
        return dtype
    if str(dtype) not in _DTYPES:
        raise UnknownNameError("dtype", dtype, _DTYPES)
    return _DTYPES[str(dtype)]


def _device(device: torch.device | str | None) -> torch.device:
    try:
        usual = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = torch.device(usual if device is None else device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise OptionError(f"device={device!r} is not available here: {error}") from error
    return chosen
