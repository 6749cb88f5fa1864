"""Errors that a user can act on: what was given, what is allowed, what to do next."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable

# What pip calls specdec; the name of the module is another project's there.
DISTRIBUTION = "specdec-transformers"

# Of difflib's ratio: a letter wrong, missing or swapped is above it, another word below.
_NEAR = 0.75


class SpecdecError(Exception):
    """Base of every error that specdec raises for a user's or a plugin's mistake."""


class UnknownNameError(SpecdecError, LookupError):
    """A name (strategy, part, option, model, argument) that nothing registered.

    Args:
        kind: what the name should have named, e.g. ``"strategy"``.
        given: what was given as a name.
        known: the names that exist.
        hint: what else would have been accepted.

    Attributes:
        nearest: the known name that is most like it; None if none is.
    """

    def __init__(self, kind: str, given: object, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.given, self.known, self.hint = kind, given, sorted(known), hint
        nearest = difflib.get_close_matches(str(given), self.known, n=1, cutoff=_NEAR)
        message = f"unknown {kind} {given!r}"
        self.nearest = nearest[0] if nearest else None
        if nearest:
            message += f": did you mean {nearest[0]!r}?"
        message += f" (known: {', '.join(self.known) or 'none'})"
        super().__init__(message + (f". {hint}" if hint else ""))


class OptionError(SpecdecError, ValueError):
    """An option or argument whose value is not allowed."""


class PromptError(SpecdecError, ValueError):
    """A prompt that cannot be decoded: empty, too long, or outside the vocabulary."""


class CheckpointError(SpecdecError):
    """A checkpoint that is missing, corrupt, unsafe, or does not fit the target model."""


class OtherKindError(CheckpointError):
    """A checkpoint that is not of the kind that reads it, which cannot say what else it is."""


class UnsupportedModelError(SpecdecError):
    """A target model whose attention cannot be verified as a tree."""


class PluginError(SpecdecError):
    """A plugin that broke the contract of its role, or two plugins that claim one name."""


class DrafterWarning(UserWarning):
    """A drafter that does not seem to fit its target, or would fit better with another option."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up."""
    import torch

    # Of the CPU's allocator, of CUDA outside of torch's, and of cuBLAS.
    signs = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in signs)


def install_extra(name: str) -> str:
    """The command that installs what an extra of specdec brings."""
    return f"pip install '{DISTRIBUTION}[{name}]'"


def first_line(error: BaseException) -> str:
    """The first line of another library's error, for a sentence of our own."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def full_name(error: BaseException) -> str:
    """The name of an error's type, with its module unless that is Python's own."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn the user, at their own line of code."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "specdec":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
