"""The command ``specdec``. Importing it, and its ``--help``, stays light: no torch."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from specdec.cli.app import app

    app()
