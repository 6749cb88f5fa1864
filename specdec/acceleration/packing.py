"""Linear layers on weights that are packed once for the CPU's kernels (oneDNN)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from specdec.acceleration.copy_times import CopyTimes, LinearShape
from specdec.errors import OptionError

# Rows of an input that the layout is chosen for: a small tree.
_ROWS = 8
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# Layers of fewer weights stay as they are: in half precision torch leaves such products to other
# kernels, which round differently, and so small a product gains nothing.
_FEWEST = 4097


class PackedLinear(nn.Module):
    """A linear layer that has a packed copy of its weight and runs on the copy that is faster.

    Which one that is depends on the number of rows alone. On the packed copy outputs in bfloat16
    and float16 are bit for bit those of the layer it stands for; in float32 they differ by
    rounding. ``weight`` and ``bias`` are that layer's own. Later changes of ``weight`` are not seen
    by the packed copy.

    Args:
        layer: bfloat16, float16 or float32, on the CPU.
        packed_at: whether the packed copy runs at 0, 1, 2, ... rows; the last entry holds for all
            beyond.
    """

    def __init__(self, layer: nn.Linear, packed_at: Sequence[bool] = (True,)) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.packed_at = tuple(packed_at)
        weight = layer.weight.detach()
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)

    @property
    def shape(self) -> LinearShape:
        """What its seconds depend on."""
        return LinearShape(self.in_features, self.out_features, self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]``."""
        rows = x.numel() // self.in_features
        if self.packed_at[min(rows, len(self.packed_at) - 1)]:
            return self.run_packed(x)
        return self.run_as_it_is(x)

    def run_as_it_is(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]`` on the layer's own weight."""
        return linear(x, self.weight, self.bias)

    def run_packed(self, x: Tensor) -> Tensor:
        """``x [..., in]`` to ``[..., out]`` on the packed copy."""
        if self.bias is None or x.dim() < 3 or x.is_contiguous():
            return self._product(x, self.bias)
        # There torch rounds the product before it adds the bias.
        return self._product(x, None) + self.bias

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], "")
        return found

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def pack(module: nn.Module, times: CopyTimes | None = None) -> nn.Module:
    """A copy of ``module`` whose linear layers are packed; parameters and buffers are shared.

    Layers of exactly the type ``nn.Linear`` are packed, unless they are very small or ``times``
    says that their packed copy is not faster at any number of rows. The packed weights take as
    much memory as the weights, beside them.

    Args:
        times: decides which copy runs; layers of unknown shapes are measured into it, which takes
            a fraction of a second for a model of some 100M parameters. Measured anew if left out.

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
        if reason := why_not_packed(device, dtype):
            raise OptionError(f"pack=True: {reason}")
    copied = _sharing_copy(module)
    holder = nn.ModuleDict({"module": copied})  # ``module`` itself may be a linear layer
    packed = {
        layer: PackedLinear(layer)
        for layer in holder.modules()
        if type(layer) is nn.Linear and layer.weight.numel() >= _FEWEST
    }
    times = times or CopyTimes()
    times.measure(packed.values())
    for layer in packed.values():
        layer.packed_at = times.packed_is_faster(layer.shape)
    for parent in list(holder.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child in packed and any(packed[child].packed_at):
                setattr(parent, name, packed[child])
    return holder["module"]


def why_not_packed(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why weights of this dtype cannot be packed on this device; None if they can."""
    name = str(dtype).removeprefix("torch.")
    if device.type != "cpu":
        return f"weights on {device} cannot be packed, only those on the CPU; leave out pack"
    if dtype not in _DTYPES:
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
