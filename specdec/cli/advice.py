"""What would make decoding faster on a machine, from what was found and measured there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_AMPERE = [8, 0]  # compute capability: GPUs before it have no instructions for bfloat16
_GAIN = 1.15  # below it a measured gain is within the noise of so short a measurement


def advice(machine: Mapping[str, Any]) -> list[dict[str, str]]:
    """What, why and how, the surest first.

    Args:
        machine: as :func:`~specdec.cli.hardware.hardware` gives it.
    """
    found = _threads(machine)
    if machine["gpus"]:
        if min(machine["compute_capabilities"]) >= _AMPERE:
            found.append(_of("bfloat16", "half the memory to read", "--dtype bfloat16"))
        if machine["c_compiler"] is None:
            why = "torch.compile on a GPU needs one, for Triton"
            how = "install gcc, to try --compile, which has not been measured on a GPU"
            found.append(_of("a C compiler", why, how))
        return found
    found += _weights(machine["milliseconds"])
    if machine["compiler"] is None:
        found.append(
            _of("a C++ compiler", "torch.compile on a CPU needs one", "install g++, then --compile")
        )
    return found


def _threads(machine: Mapping[str, Any]) -> list[dict[str, str]]:
    threads, allowed = machine["threads"], machine["cores_allowed"]
    if threads > allowed:
        why = f"torch runs {threads} threads on the {allowed} cores that this process may use"
    elif threads < allowed:
        why = f"torch runs {threads} of the {allowed} threads that there are cores for"
    else:
        return []
    return [
        _of(f"{allowed} threads", why, f"--threads {allowed}, torch.set_num_threads({allowed})")
    ]


def _weights(measured: Mapping[str, float]) -> list[dict[str, str]]:
    """The dtype and layout of weights that were read fastest, if they gain enough."""
    if not measured:
        return []
    best = min(measured, key=lambda name: measured[name])
    found = []
    for name in dict.fromkeys((best, best.removesuffix(" packed"), "float32 packed")):
        if name not in measured or (gain := measured["float32"] / measured[name]) < _GAIN:
            continue
        dtype, packed = name.removesuffix(" packed"), name.endswith(" packed")
        flags = [f"--dtype {dtype}"] * (dtype != "float32") + ["--pack"] * packed
        rounds = " (text may differ from float32's where two tokens are almost tied)"
        copies = ", for a second copy of the weights in memory"
        why = f"a forward's matrices took 1/{gain:.1f} of float32's time here"
        why += rounds * (dtype != "float32") + copies * packed
        found.append(_of(name, why, " ".join(flags)))
    return found


def _of(what: str, why: str, how: str) -> dict[str, str]:
    return {"what": what, "why": why, "how": how}
