"""Temperatures as text: short, and never the same text for two of them."""

from __future__ import annotations

from pathlib import Path


def written(temperature: float) -> str:
    """``0``, ``0.7``, ``1``: six digits if they say it exactly, else as many as it takes."""
    short = f"{temperature:g}"
    return short if float(short) == temperature else repr(float(temperature))


def at_temperature(file: Path, temperature: float) -> Path:
    """The file for one temperature: ``runs.jsonl`` becomes ``runs-t0.jsonl``."""
    return file.with_name(f"{file.stem}-t{written(temperature)}{file.suffix}")
