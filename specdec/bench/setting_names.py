"""Temperatures and batch sizes as text: short, and never the same text for two of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def temperature_text(temperature: float) -> str:
    """``0``, ``0.7``, ``1``: six digits if they say it exactly, else as many as it takes."""
    short = f"{temperature:g}"
    return short if float(short) == temperature else repr(float(temperature))


def settings_text(settings: Mapping[str, Any]) -> str:
    """``temperature 0``; of larger batches ``temperature 0, batch 4``.

    Args:
        settings: with ``temperature`` and ``batch_size``.
    """
    size: int = settings["batch_size"]
    temperature = temperature_text(settings["temperature"])
    return f"temperature {temperature}" + (f", batch {size}" * (size > 1))


def at_settings(file: Path, temperature: float, batch_size: int = 1) -> Path:
    """The file for one temperature and batch size: ``runs.jsonl`` becomes ``runs-t0.jsonl``, and of
    larger batches ``runs-t0-b4.jsonl``."""
    at = f"-t{temperature_text(temperature)}" + (f"-b{batch_size}" * (batch_size > 1))
    return file.with_name(f"{file.stem}{at}{file.suffix}")
