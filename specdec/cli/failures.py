"""Errors, warnings and interrupts as a user should see them: one line and an exit code."""

from __future__ import annotations

import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import ParamSpec, TextIO

import typer

from specdec.errors import SpecdecError

P = ParamSpec("P")

USAGE = 2
INTERRUPTED = 130
_FOREIGN = ("torch", "transformers", "huggingface_hub", "tokenizers", "safetensors", "pydantic")


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what ``command`` raises into one message on stderr and an exit code.

    A :class:`SpecdecError` exits with 2, an interrupt with 130, anything else with 1. With the
    command's argument ``debug`` the traceback is printed too.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        debug = bool(kwargs.get("debug"))
        try:
            with warnings.catch_warnings():
                if not debug:
                    warnings.showwarning = OneLineWarnings()
                command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _discard_stdout()
            raise typer.Exit(1) from None
        except SpecdecError as error:
            _tell(str(error), debug)
            raise typer.Exit(USAGE) from None
        except Exception as error:
            hint = "" if debug else " (--debug shows where)"
            _tell(f"unexpected {type(error).__name__}: {error}{hint}", debug)
            raise typer.Exit(1) from None

    return run


class OneLineWarnings:
    """Shows each UserWarning once, on one line; those of the libraries below are left out."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        foreign = any(f"{os.sep}{package}{os.sep}" in filename for package in _FOREIGN)
        if issubclass(category, UserWarning) and not foreign and text not in self._shown:
            self._shown.add(text)
            typer.echo(typer.style("warning: ", fg="yellow") + text, err=True)


def quiet_libraries() -> None:
    """Keep transformers and the hub from writing progress bars and warnings into the answer."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _tell(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    typer.echo(typer.style("error: ", fg="red", bold=True) + message, err=True)


def _discard_stdout() -> None:
    """Nobody reads stdout any more: what is still buffered must not raise again at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
