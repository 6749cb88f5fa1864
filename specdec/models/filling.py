"""Filling a network of a plugin with a checkpoint's tensors, or refusing them by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from specdec.errors import CheckpointError

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_tensors(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    written: Mapping[str, str],
    what: str,
    allowed: Collection[str] = (),
) -> None:
    """Refuse tensors that are not those of the network.

    Args:
        network: of the right shapes, on any device.
        tensors: by the names that the network's ``state_dict`` has for them.
        written: for each of these names, known to the checkpoint or not, what the checkpoint calls
            it; itself where it is left out.
        what: the kind of checkpoint, for the message ("Medusa heads").
        allowed: names that may be there although the network has no such tensor.

    Raises:
        CheckpointError: missing, unexpected or misshapen tensors, tensors that hold no floating
            point numbers, or NaN or infinity, each named.
    """
    expected = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    problems = []

    def named(names: Collection[str]) -> str:
        return ", ".join(sorted(written.get(name, name) for name in names))

    if missing := expected.keys() - tensors.keys():
        problems.append(f"missing keys: {named(missing)}")
    if extra := tensors.keys() - expected.keys() - {*allowed}:
        problems.append(f"unexpected keys: {named(extra)}")
    for name in sorted(expected.keys() & tensors.keys()):
        tensor, shape = tensors[name], expected[name]
        if tuple(tensor.shape) != shape:
            problems.append(f"{named([name])} has shape {list(tensor.shape)}, not {list(shape)}")
        if tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            problems.append(f"{named([name])} is {kind}, quantised or no numbers to compute with")
        elif not tensor.isfinite().all():
            problems.append(f"{named([name])} holds NaN or infinity (never filled?)")
    if problems:
        raise CheckpointError(
            f"its tensors are not those of {what} with this config.json: {'; '.join(problems)}"
        )


def fill(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    written: Mapping[str, str],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Put tensors that :func:`check_tensors` has let pass into a network made on ``meta``.

    Args:
        written: as for :func:`check_tensors`.

    Raises:
        CheckpointError: values that ``dtype`` does not have, by name.
    """
    own = {name: tensors[name].to(device, dtype, copy=True) for name in network.state_dict()}
    if lost := [written.get(name, name) for name, each in own.items() if not each.isfinite().all()]:
        raise CheckpointError(
            f"{', '.join(lost)}: values that {str(dtype).removeprefix('torch.')} does not reach; "
            "give the drafter's option dtype, e.g. float32"
        )
    network.load_state_dict(own, strict=True, assign=True)
