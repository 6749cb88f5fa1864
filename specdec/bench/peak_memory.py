"""Peak memory of a stretch of work, as far as the system reports it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """The peak since :meth:`reset`, in bytes.

    Of a GPU: what torch had allocated there. On Linux: the resident memory of the process, whose
    high-water mark can be reset. Elsewhere: the resident memory of the process since it started,
    which tells contenders apart only when it grows. All three count everything that is loaded,
    the other contenders' weights too.

    Attributes:
        meaning: one line that says which of these it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            self.meaning = "allocated by torch on the GPU, all weights that are loaded included"
        elif _cleared():
            self.meaning = "resident memory of the process, all weights that are loaded included"
        else:
            self.meaning = "resident memory of the process since its start: no contender's own"

    def reset(self) -> None:
        """Start over."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _cleared()

    def read(self) -> int:
        """The peak so far."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if _STATUS.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())):
            return int(found[1]) * 1024
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _cleared() -> bool:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
