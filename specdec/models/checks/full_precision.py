"""Full precision: a half-precision network computed in float32 on its own weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from specdec.models.quantised import dequantised

_HALF = (torch.bfloat16, torch.float16)
# Bytes of converted weights that are kept from one forward to the next; the rest is converted anew
# in every forward, one module at a time, so that a large model needs no second copy of itself.
_KEPT = 2 << 30
_SHARE_OF_FREE = 4


def in_full_precision(dtype: torch.dtype) -> torch.dtype:
    """``dtype``, or float32 in place of a half-precision one."""
    return torch.float32 if dtype in _HALF else dtype


@contextmanager
def upcast(network: nn.Module) -> Iterator[None]:
    """Within, half-precision modules of ``network`` compute in float32, and quantised ones without
    rounding their inputs.

    Weights are converted as each module runs and are as before afterwards.
    """
    kept: dict[int, Tensor] = {}
    room = _room(network)
    replaced: dict[nn.Module, list[tuple[dict[str, Any], str, Tensor]]] = {}

    def converted(tensor: Tensor) -> Tensor:
        nonlocal room
        if id(tensor) not in kept:
            # In inference mode a sharded weight cannot be detached.
            with torch.inference_mode(False), torch.no_grad():
                wide = tensor.detach().float()
                if isinstance(tensor, nn.Parameter):  # hooks of a placed model make others like it
                    wide = nn.Parameter(wide, requires_grad=False)
            if wide.nbytes > room:
                return wide
            room -= wide.nbytes
            kept[id(tensor)] = wide
        return kept[id(tensor)]

    def widen(module: nn.Module, inputs: object) -> None:
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for own in stores:
            for name, tensor in own.items():
                if tensor is not None and tensor.dtype in _HALF:
                    replaced.setdefault(module, []).append((own, name, tensor))
                    own[name] = converted(tensor)

    def restore(module: nn.Module, inputs: object, output: object) -> None:
        for own, name, tensor in replaced.pop(module, []):
            own[name] = tensor

    hooks = []
    replacing = [(module, run) for module in network.modules() if (run := dequantised(module))]
    # Where hooks of a placed model stand around the forward, they stay.
    names = ["_old_forward" if "_old_forward" in vars(each) else "forward" for each, _ in replacing]
    before = [vars(module).get(name) for (module, _), name in zip(replacing, names, strict=True)]
    for (module, run), name in zip(replacing, names, strict=True):
        vars(module)[name] = run
    quantised = {module for module, _ in replacing}
    for module in network.modules():
        if module in quantised:
            continue
        hooks.append(module.register_forward_pre_hook(widen))
        hooks.append(module.register_forward_hook(restore, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in list(replaced):
            restore(module, (), None)
        for (module, _), name, own in zip(replacing, names, before, strict=True):
            if own is None:
                del vars(module)[name]
            else:
                vars(module)[name] = own


def _room(network: nn.Module) -> int:
    devices = {weight.device for weight in network.parameters() if weight.device.type == "cuda"}
    free = [torch.cuda.mem_get_info(device)[0] // _SHARE_OF_FREE for device in devices]
    return min([_KEPT, *free])
