"""Hypothesis, or an error that says how to install it."""

from __future__ import annotations

from specdec.errors import SpecdecError, install_extra

__all__ = ["hypothesis", "st"]

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError as error:
    raise SpecdecError(
        f"specdec.testing needs Hypothesis: {install_extra('test')}, or pip install hypothesis"
    ) from error
