"""Filling a network of a plugin with a checkpoint's tensors, or refusing them by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from specdec.errors import CheckpointError
from specdec.models.checkpoint_weights import listed

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_tensors(
    expected: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    keys: Mapping[str, str],
    what: str,
    surplus: Collection[str] = (),
    hint: str = "",
) -> None:
    """Refuse tensors that are not those of a network.

    Args:
        expected: the network's, on any device, for their shapes.
        tensors: by the same names; others are not looked at.
        keys: for each of these names what the checkpoint calls it.
        what: the kind of checkpoint, for the message ("Medusa heads").
        surplus: what else the checkpoint has, by its own names.
        hint: the end of the message.

    Raises:
        CheckpointError: missing, unexpected or misshapen tensors, tensors that hold no floating
            point numbers, or NaN or infinity, each named.
    """
    problems = []
    if missing := expected.keys() - tensors.keys():
        problems.append(f"missing keys: {listed(keys[name] for name in missing)}")
    if surplus:
        problems.append(f"unexpected keys: {listed(surplus)}")
    for name in sorted(expected.keys() & tensors.keys()):
        tensor, shape, key = tensors[name], list(expected[name].shape), keys[name]
        if list(tensor.shape) != shape:
            problems.append(f"{key} has shape {list(tensor.shape)}, not {shape}")
        if tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            problems.append(f"{key} is {kind}, quantised or no numbers to compute with")
        elif not tensor.isfinite().all():
            problems.append(f"{key} holds NaN or infinity (never filled?)")
    if problems:
        raise CheckpointError(
            f"its tensors are not those of {what} with this config.json: {'; '.join(problems)}"
            f"{hint}"
        )


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Refuse the tensors of a loaded network that are no numbers.

    Raises:
        CheckpointError: with their names.
    """
    if lost := [name for name, each in tensors.items() if not each.isfinite().all()]:
        raise CheckpointError(f"{listed(lost)}: values that are NaN or infinity")


def load_tensors(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    keys: Mapping[str, str],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Put tensors that :func:`check_tensors` has let pass into a network made on ``meta``.

    Args:
        tensors, keys: by the names of the network's ``state_dict``.

    Raises:
        CheckpointError: values that ``dtype`` does not have, by name.
    """
    own = {name: tensors[name].to(device, dtype, copy=True) for name in network.state_dict()}
    if lost := [keys[name] for name, each in own.items() if not each.isfinite().all()]:
        raise CheckpointError(
            f"{listed(lost)}: values that {str(dtype).removeprefix('torch.')} does not reach; "
            "give the drafter's option dtype, e.g. float32"
        )
    network.load_state_dict(own, strict=True, assign=True)
