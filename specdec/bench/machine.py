"""The machine, versions and commit that a figure comes from."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch
import transformers

import specdec


def machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads and GPU."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def versions() -> dict[str, Any]:
    """Of everything that the figures depend on; the commit is None outside a checkout."""
    return {
        "specdec": specdec.__version__,
        "commit": _commit(Path(specdec.__file__).parent),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (
        found := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
    ):
        return found[1].strip()
    return platform.processor() or platform.machine()


def _commit(package: Path) -> str | None:
    """Of the checkout that the package lies in, with ``-dirty`` where files differ from it."""
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package.parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
