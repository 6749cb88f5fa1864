"""Placement: a model that accelerate has laid out over several devices, memory or disk
(``device_map``), and runs by hooks that move weights and inputs to each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from specdec.errors import UnsupportedModelError


def hooks(module: nn.Module) -> Iterator[Any]:
    """The hooks of a module itself."""
    hook = vars(module).get("_hf_hook")
    if hook is not None:
        yield from getattr(hook, "hooks", [hook])


def is_placed(model: nn.Module) -> bool:
    """Whether hooks run it."""
    return any(True for module in model.modules() for _ in hooks(module))


def places(model: nn.Module, device: torch.device) -> str:
    """Where its layers are, for reports: the places of its ``device_map``, or the device."""
    found = getattr(model, "hf_device_map", None) or {"": device}
    return ", ".join(sorted({str(place) for place in found.values()}))


def is_offloaded(module: nn.Module) -> bool:
    """Whether its own weights come from elsewhere whenever it runs."""
    return any(getattr(hook, "offload", False) for hook in hooks(module))


def offloaded(model: nn.Module) -> set[int]:
    """The ids of the weights that are not there because they are loaded when they are used."""
    return {
        id(tensor)
        for module in model.modules()
        if is_offloaded(module)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }


def brought(model: nn.Module, name: str) -> Tensor:
    """A weight that is loaded when it is used, by its name.

    Raises:
        UnsupportedModelError: nothing loads it.
    """
    path, _, own = name.rpartition(".")
    for hook in hooks(model.get_submodule(path)):
        held = getattr(hook, "weights_map", None)
        if held is not None and isinstance(found := held.get(own), Tensor):
            return found
    raise UnsupportedModelError(f"the weight {name} of this model is not in memory: load it again")


def device_of(module: nn.Module) -> torch.device:
    """Where a module with a weight runs."""
    for hook in hooks(module):
        if (device := getattr(hook, "execution_device", None)) is not None:
            return torch.device(device)
    weight: Any = module.weight
    found: torch.device = weight.device
    return found


def shared_by_hooks(model: nn.Module) -> dict[int, Any]:
    """By their ids, what copies of a model have in common beside its tensors: the weights that
    its hooks bring."""
    held = (
        getattr(hook, name, None)
        for module in model.modules()
        for hook in hooks(module)
        for name in ("weights_map", "tied_params_map")
    )
    return {id(each): each for each in held if each is not None}


def return_outputs(*modules: nn.Module) -> None:
    """Have modules of a placed model give their outputs where their inputs were."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    for module in modules:
        if any(getattr(hook, "io_same_device", False) for hook in hooks(module)):
            continue
        own = list(hooks(module))
        if len(own) == 1 and isinstance(own[0], AlignDevicesHook):
            own[0].io_same_device = True
        else:
            returning = AlignDevicesHook(io_same_device=True, skip_keys=["cache"])
            add_hook_to_module(module, returning, append=True)
