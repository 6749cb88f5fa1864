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
        "commit": commit_of(Path(specdec.__file__).parent.parent),
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


def commit_of(checkout: Path, *options: str) -> str | None:
    """What is checked out there, with ``-dirty`` where files differ from it.

    Args:
        checkout: a folder; None is returned unless it is the root of a repository.
        options: further ones of ``git describe``.
    """
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
