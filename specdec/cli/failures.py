"""Errors, warnings and interrupts as a user should see them: one line and an exit code."""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TextIO

import typer
from typer.core import TyperGroup

from specdec.errors import SpecdecError

P = ParamSpec("P")

USAGE = 2
INTERRUPTED = 130
_FOREIGN = ("torch", "transformers", "huggingface_hub", "tokenizers", "safetensors", "pydantic")


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what ``command`` raises into one message and an exit code.

    A :class:`SpecdecError` exits with 2, an interrupt with 130, anything else with 1. The message
    goes to stderr; where the command's argument ``json`` asks for JSON on stdout, it is a JSON
    object there. With its argument ``debug`` the traceback is printed to stderr too, and so is what
    specdec logs.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        debug = bool(kwargs.get("debug"))
        tell = tell_json if kwargs.get("json") in (True, Path("-")) else _tell
        try:
            with warnings.catch_warnings(), _logged(to_stderr=debug):
                if not debug:
                    warnings.showwarning = OneLineWarnings()
                command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            if tell is tell_json:
                tell_json("KeyboardInterrupt", "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _discard_stdout()
            raise typer.Exit(1) from None
        except SpecdecError as error:
            if debug:
                traceback.print_exc()
            tell(type(error).__name__, str(error))
            raise typer.Exit(USAGE) from None
        except Exception as error:
            if debug:
                traceback.print_exc()
            hint = "" if debug else " (--debug shows where)"
            name = type(error).__name__
            tell(name, f"unexpected {name}: {error}{hint}")
            raise typer.Exit(1) from None

    return run


@contextmanager
def _logged(*, to_stderr: bool) -> Iterator[None]:
    """Within, what specdec logs goes to stderr, or nowhere."""
    if not to_stderr:
        yield
        return
    handler, logger = logging.StreamHandler(), logging.getLogger("specdec")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


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


class CommandGroup(TyperGroup):
    """Reports usage errors, like an unknown flag, as JSON too where the command line asks for it.

    Those are found before a command runs.
    """

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the command line; arguments as for click's."""
        given = args[0] if args else settings.get("args")
        alone = settings.get("standalone_mode", True)
        if not alone or not _asks_for_json(sys.argv[1:] if given is None else list(given)):
            return super().main(*args, **settings)
        try:
            code = super().main(*args, **{**settings, "standalone_mode": False})
        except typer.Abort:
            sys.exit(1)
        except Exception as error:
            # typer has no public name for the class, which is click's or a copy of it.
            if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
                raise
            tell_json(type(error).__name__, error.format_message())
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def _asks_for_json(arguments: Sequence[str]) -> bool:
    if arguments[:1] == ["bench"]:
        pairs = zip(arguments, [*arguments[1:], ""], strict=True)
        return "--json=-" in arguments or ("--json", "-") in pairs
    return "--json" in arguments


def tell_json(kind: str, message: str) -> None:
    """An error as a JSON object on stdout, where the answer would be."""
    from specdec.cli import terminal

    terminal.print_json({"error": {"type": kind, "message": message}})


def _tell(kind: str, message: str) -> None:
    typer.echo(typer.style("error: ", fg="red", bold=True) + message, err=True)


def _discard_stdout() -> None:
    """Nobody reads stdout any more: what is still buffered must not raise again at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
