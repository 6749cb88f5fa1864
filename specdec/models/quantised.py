"""Quantised layers, as far as they need to be known: those of bitsandbytes in 8 bits, whose scales
lie beside the weight, and linear layers on weights that can be multiplied out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from specdec.models.ranks import is_sharded

_LIBRARY = "bitsandbytes"


def _has_eight_bits(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__name__ == "Linear8bitLt" and kind.__module__.startswith(_LIBRARY)


def rounds_by_neighbours(module: nn.Module) -> bool:
    """Whether a layer keeps outliers apart, which it finds among all tokens of a forward."""
    state: Any = getattr(module, "state", None)
    return _has_eight_bits(module) and bool(state.threshold > 0)


def settle(model: nn.Module) -> None:
    """Have 8-bit layers do what their first forward does, which takes their scales away from the
    weight: of two layers on one weight the second would find none."""
    for module in model.modules():
        held: Any = module
        if _has_eight_bits(module) and getattr(held.weight, "CB", None) is not None:
            held.init_8bit_state()


def scales(model: nn.Module) -> Iterator[Tensor]:
    """The tensors of bitsandbytes that lie beside weights."""
    for module in model.modules():
        for held in vars(module).values():
            if type(held).__module__.startswith(_LIBRARY):
                yield from (each for each in vars(held).values() if isinstance(each, Tensor))


def dequantised(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What computes a quantised linear layer in the precision of its input; None for any other.

    Where activations are rounded to few bits, a forward is no smooth function of what it reads: two
    right forwards differ by far more than their arithmetic, and a wrong mask hides in between.
    With the weights multiplied out, the same layer is as smooth as any.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.is_meta or is_sharded(weight):
        return None
    if _has_eight_bits(module):
        from transformers.integrations.bitsandbytes import dequantize_bnb_weight

        return lambda inputs: _linear(module, inputs, dequantize_bnb_weight(weight, module.state))
    if not isinstance(module, nn.Linear) or not is_packed(weight):
        return None
    return lambda inputs: _linear(module, inputs, type(weight).dequantize(weight))


def any_dequantised(network: nn.Module) -> bool:
    """Whether any of its layers is one of those."""
    return any(dequantised(module) is not None for module in network.modules())


def is_quantised(model: nn.Module) -> bool:
    """Whether weights are packed in few bits: as transformers has loaded them, or since then, as by
    ``torchao.quantization.quantize_``, of which the model knows nothing."""
    if getattr(model, "is_quantized", False):
        return True
    return any(map(_has_eight_bits, model.modules())) or any(map(is_packed, model.parameters()))


def is_packed(weight: Tensor) -> bool:
    """Whether it is of a class of its own that can be multiplied out."""
    return type(weight).dequantize is not torch.Tensor.dequantize


def _linear(module: nn.Module, inputs: Tensor, weight: Tensor) -> Tensor:
    bias = module.bias
    own = bias.to(inputs.dtype) if isinstance(bias, Tensor) else None
    return linear(inputs, weight.to(inputs.dtype), own)
