"""How to go on with a job that was begun with other arguments."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_FLAGS = {
    "model": "-m", "strategy": "-s", "dtype": "--dtype", "batch_size": "-b", "slots": "--slots",
    "window": "--window", "seed": "--seed",
}  # fmt: skip
_SWITCHES = {"chat": "--chat", "token_ids": "--token-ids"}
# What follows from something else that a job is about.
_FOLLOWS = {
    "model": ("weights", "dtype", "generation config", "chat template", "tokenizer"),
    "strategy": ("parts", "part options"),
}
_FILES = ("rows", "prompts")


def how_to_go_on(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """A sentence: the arguments with which the job that was begun goes on, or is found finished.

    Args:
        there, here: what the job that was begun is about, and the one that is to go on with it.
    """
    other = [name for name in here if there.get(name) != here[name]]
    implied = {each for name in other for each in _FOLLOWS.get(name, ())}
    arguments = [
        argument
        for name in other
        if name not in implied
        for argument in _arguments(name, there.get(name), here[name])
    ]
    return f"To go on with it: {', '.join(dict.fromkeys(arguments))}. Or give another file"


def _arguments(name: str, there: Any, here: Any) -> Iterator[str]:
    """What to give, by name, so that it is as there."""
    if name in _FLAGS:
        yield f"{_FLAGS[name]} {shlex.quote(str(there))}"
    elif name in _SWITCHES:
        yield _SWITCHES[name] if there else f"no {_SWITCHES[name]}"
    elif name == "keep":
        yield " ".join(f"--keep {shlex.quote(each)}" for each in there or ()) or "no --keep"
    elif name == "settings":
        yield from _assigned("--set", there or {}, here)
    elif name == "parts":
        yield from (f"--{role} {there[role]}" for role in there if there[role] != here.get(role))
    elif name == "part options":
        yield from _assigned("-o", _by_path(there or {}), _by_path(here))
    elif name in _FILES:
        yield "the same file of prompts"
    else:
        yield f"the same {name}"


def _by_path(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Options of the parts by ``role.option``."""
    return {f"{role}.{name}": own[name] for role, own in options.items() for name in own}


def _assigned(flag: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """Assignments that are not the same in both, as they are there."""
    for name in {**there, **here}:
        if name.endswith(".checkpoint") and there.get(name) != here.get(name):
            yield "the same checkpoint"  # what is kept is a fingerprint
        elif name not in there:
            yield f"no {flag} {name}"
        elif there[name] != here.get(name):
            value = there[name] if isinstance(there[name], str) else json.dumps(there[name])
            yield f"{flag} {shlex.quote(f'{name}={value}')}"
