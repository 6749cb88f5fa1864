"""Copies of a caller's objects, which stay as they are when the caller's own change."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

# What a copy shares with its original: read, not written, and too large to have many of.
SHARED = (ModuleType, type, torch.nn.Module, PreTrainedTokenizerBase)


def with_own_containers(value: Any) -> Any:
    """A value whose mappings, lists and tuples are copies, however deep; what they hold in the end,
    such as models and tensors, is shared."""
    if isinstance(value, Mapping):
        return {name: with_own_containers(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(with_own_containers, value))
    return value


def copied(originals: list[T]) -> list[T]:
    """Deep copies; unlike those of :func:`copy.deepcopy` closures have what they hold copied too.

    Modules, classes, and the models and tokenizers that an original holds are shared. State in a
    global or on a class is outside of an object, and is not copied.

    Raises:
        Exception: whatever an object raises that cannot be copied.
    """
    memo: dict[int, Any] = {}
    functions = []
    for value in _reachable(originals):
        if isinstance(value, SHARED):
            memo[id(value)] = value
        elif isinstance(value, FunctionType) and _holds(value):
            functions.append(value)
    cells = {id(cell): CellType() for f in functions for cell in f.__closure__ or ()}
    for f in functions:
        own = tuple(cells[id(cell)] for cell in f.__closure__ or ())
        memo[id(f)] = FunctionType(f.__code__, f.__globals__, f.__name__, None, own)
    for f in functions:
        new = memo[id(f)]
        new.__defaults__ = copy.deepcopy(f.__defaults__, memo)
        new.__kwdefaults__ = copy.deepcopy(f.__kwdefaults__, memo)
        new.__qualname__ = f.__qualname__
        new.__dict__.update(copy.deepcopy(vars(f), memo))
        for cell, value in _contents(f):
            cells[id(cell)].cell_contents = copy.deepcopy(value, memo)
    return copy.deepcopy(originals, memo)


def _holds(function: FunctionType) -> bool:
    """Whether a function can keep anything between calls, globals aside."""
    return bool(
        function.__closure__ or function.__defaults__ or function.__kwdefaults__ or vars(function)
    )


def _contents(function: FunctionType) -> list[tuple[CellType, Any]]:
    """The cells of a closure and what is in them; a name may not have been bound yet."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append((cell, cell.cell_contents))
        except ValueError:
            continue
    return found


def _reachable(originals: list[T]) -> list[Any]:
    """What the originals hold, and what that holds; nothing inside of what is shared."""
    found: dict[int, Any] = {}  # the values too: an id stands for one object while it lives
    # A network among the originals is copied whole.
    pending: list[Any] = [one for one in originals if not isinstance(one, torch.nn.Module)]
    while pending:
        value = pending.pop()
        if id(value) in found:
            continue
        found[id(value)] = value
        if isinstance(value, SHARED):
            continue
        if isinstance(value, FunctionType):
            pending += [held for _, held in _contents(value)]
            pending += [value.__defaults__, value.__kwdefaults__]
        elif isinstance(value, MethodType):
            pending.append(value.__self__)
        elif isinstance(value, partial):
            pending += [value.func, value.args, value.keywords]
        elif isinstance(value, dict):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            pending += value
        pending.append(getattr(value, "__dict__", None))
    return list(found.values())
