"""The machine as torch sees it, and how long a forward's matrices take to read on it."""

from __future__ import annotations

import os
import shutil
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from specdec.acceleration.packing import PackedLinear, why_not_packed
from specdec.bench.machine import machine

_SIZE = 2048  # channels: 16 MiB of weights in float32
_LAYERS = 4  # read in turns, so that they do not stay in the processor's cache
_RUNS = 6


def hardware() -> dict[str, Any]:
    """Processor, cores, threads, instructions, GPUs, and milliseconds of a forward on the CPU."""
    numbers = range(torch.cuda.device_count())
    gpus = [torch.cuda.get_device_name(i) for i in numbers]
    found = machine(torch.device("cpu"))
    del found["gpu"]
    return {
        **found,
        "cores_allowed": _allowed(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
        "compute_capabilities": [list(torch.cuda.get_device_capability(i)) for i in numbers],
        "cuda": torch.version.cuda if gpus else None,
        "mps": torch.backends.mps.is_available(),
        "compiler": _first_of("c++", "g++", "clang++"),
        "c_compiler": _first_of(*filter(None, [os.environ.get("CC")]), "gcc", "clang"),  # Triton's
        "milliseconds": {} if gpus else milliseconds(),
    }


def milliseconds() -> dict[str, float]:
    """Of a matrix of 4M weights times one token, by dtype, packed and as it is."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        layers = [nn.Linear(_SIZE, _SIZE, bias=False, dtype=dtype) for _ in range(_LAYERS)]
        name = str(dtype).removeprefix("torch.")
        x = torch.randn(1, _SIZE).to(dtype)
        found[name] = _measured(layers, x)
        if why_not_packed(torch.device("cpu"), dtype) is None:
            found[f"{name} packed"] = _measured([PackedLinear(each) for each in layers], x)
    return found


@torch.inference_mode()
def _measured(layers: list[Any], x: Tensor) -> float:
    """Milliseconds of a layer, the least of rounds over all of them: others use the machine too."""
    seconds = []
    for _ in range(_RUNS):
        start = perf_counter()
        for layer in layers:
            layer(x)
        seconds.append((perf_counter() - start) / len(layers))
    return round(1000 * min(seconds), 3)


def _first_of(*programs: str) -> str | None:
    return next((name for name in programs if shutil.which(name)), None)


def _allowed() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
