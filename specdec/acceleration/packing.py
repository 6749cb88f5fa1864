"""Linear layers on weights that are packed once for the CPU's kernels (oneDNN)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from specdec.errors import OptionError

# Rows of an input that the layout is chosen for: a small tree.
_ROWS = 8
# Layers of fewer weights stay as they are. In half precision torch leaves such products to other
# kernels, which round differently; in float32 packing makes them slower.
_FEWEST = {torch.bfloat16: 4097, torch.float16: 4097, torch.float32: 1 << 17}


class PackedLinear(nn.Module):
    """A linear layer that computes with a packed copy of its weight.

    In bfloat16 and float16 outputs are bit for bit those of the layer it stands for; in float32
    they differ by rounding. ``weight`` and ``bias`` are that layer's own. Later changes of
    ``weight`` are not seen.

    Args:
        linear: bfloat16, float16 or float32, on the CPU.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        weight = linear.weight.detach()
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]``."""
        if self.bias is None or x.dim() < 3 or x.is_contiguous():
            return self._product(x, self.bias)
        # There torch rounds the product before it adds the bias.
        return self._product(x, None) + self.bias

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], "")
        return found

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def pack(module: nn.Module) -> nn.Module:
    """A copy of ``module`` whose linear layers are packed; parameters and buffers are shared.

    Layers of exactly the type ``nn.Linear`` are packed, unless they are too small to gain. The
    packed weights take as much memory as the weights, beside them.

    Raises:
        OptionError: a device or dtype that cannot be packed here, or no linear layer at all.
    """
    linears = [layer for layer in module.modules() if type(layer) is nn.Linear]
    if not linears:
        raise OptionError(
            f"pack=True: {type(module).__name__} has no nn.Linear layer, so nothing of it can be "
            "packed; leave out pack for this model"
        )
    for device, dtype in dict.fromkeys((each.weight.device, each.weight.dtype) for each in linears):
        if reason := _refusal(device, dtype):
            raise OptionError(f"pack=True: {reason}")
    if type(module) is nn.Linear:
        return PackedLinear(module) if _gains(module) else module
    copied = _sharing_copy(module)
    packed: dict[nn.Linear, PackedLinear] = {}
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and _gains(child):
                if child not in packed:
                    packed[child] = PackedLinear(child)
                setattr(parent, name, packed[child])
    return copied


def _gains(linear: nn.Linear) -> bool:
    return linear.weight.numel() >= _FEWEST[linear.weight.dtype]


def _refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why weights of this dtype cannot be packed on this device; None if they can."""
    name = str(dtype).removeprefix("torch.")
    if device.type != "cpu":
        return f"weights on {device} cannot be packed, only those on the CPU; leave out pack"
    if dtype not in _FEWEST:
        return (
            f"{name} weights cannot be packed; give dtype='float32' or 'bfloat16', or leave out "
            "pack"
        )
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this build of torch has no oneDNN, which does the packing; leave out pack"
    try:
        torch.ops.mkldnn._reorder_linear_weight(torch.zeros(32, 32, dtype=dtype), _ROWS)
        supported = {
            torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
            torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
        }
        if dtype in supported and not supported[dtype]():
            raise RuntimeError("no instructions for it")
    except (RuntimeError, AttributeError) as error:
        return (
            f"this processor or torch cannot pack {name} weights ({error}); give another dtype or "
            "leave out pack"
        )
    return None


def _sharing_copy(module: nn.Module) -> nn.Module:
    """The same tree of modules on the same parameters, buffers and configs."""
    shared: list[object] = [*module.parameters(), *module.buffers()]
    shared += [each.config for each in module.modules() if hasattr(each, "config")]
    return copy.deepcopy(module, {id(each): each for each in shared})
