"""Distributions: the likeliest token is the same in every precision that logits come in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from specdec.distribution import likeliest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_first_of_equally_likely_tokens_is_taken_with_and_without_a_copy(
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-3, 4, (4, 9, 700), generator=generator).to(dtype)
    wide = logits.float()
    first = (wide == wide.amax(-1, keepdim=True)).int().argmax(-1)
    assert torch.equal(likeliest(logits), first)
    assert torch.equal(logits.argmax(-1), first)
    assert torch.equal(likeliest(logits.double()), first)


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), ("meta", torch.bfloat16)])
def test_logits_are_copied_on_a_cpu_alone(device: str, dtype: torch.dtype) -> None:
    read: list[torch.dtype] = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func.overloadpacket.__name__ == "argmax":
                read.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    logits = torch.zeros(2, 3, 40, dtype=torch.bfloat16, device=device)
    with Watching():
        assert likeliest(logits).shape == (2, 3)
    assert read == [dtype]
