"""What the shell offers at TAB: names of strategies, parts, options, models and trainers.

Plugins import torch, which takes seconds: the names are kept in a file until what is installed
changes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from specdec.plugin import ROLES

Names = dict[str, list[str]]
Completion = Callable[[str], list[str]]


def kept_in() -> Path:
    """The file of the names: in the folder ``SPECDEC_CACHE``, else in the user's own."""
    folder = os.environ.get("SPECDEC_CACHE") or typer.get_app_dir("specdec")
    return Path(folder) / "completion.json"


def names() -> Names:
    """Names by kind, and under ``option:STRATEGY`` the options ``role.option`` of each strategy."""
    file, key = kept_in(), _installed()
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["installed"] == key:
            found: Names = kept["names"]
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    fresh = _collected()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"installed": key, "names": fresh}), encoding="utf-8")
    except OSError:
        pass  # then the next TAB takes as long
    return fresh


def named(*kinds: str) -> Completion:
    """Offers the names of some kinds."""

    def offered(incomplete: str) -> list[str]:
        return [name for kind in kinds for name in _names(kind) if name.startswith(incomplete)]

    return offered


def listed(*kinds: str) -> Completion:
    """Offers one more name of some kinds for a list with commas."""

    def offered(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        return [f"{before}{comma}{name}" for name in named(*kinds)(last) if name not in given]

    return offered


def part_options(context: typer.Context, incomplete: str) -> list[str]:
    """Offers ``role.option=`` of the strategy on the command line, of all where none is."""
    strategy = context.params.get("strategy") or context.params.get("name")
    found = _names(f"option:{strategy}", "option")
    return [f"{name}=" for name in found if name.startswith(incomplete)]


def _names(kind: str, otherwise: str = "") -> list[str]:
    try:
        found = names()
    except Exception:  # a broken plugin must not write into the command line
        return []
    return found.get(kind, found.get(otherwise, []))


def _collected() -> Names:
    from specdec.plugin.registry import Registry

    registry = Registry.load()
    found: Names = {"strategy": list(registry.strategies), "model": list(registry.models)}
    found["trainer"] = list(registry.trainers)
    found |= {role: list(registry.components[role]) for role in ROLES}
    for strategy in registry.strategies:
        found[f"option:{strategy}"] = list(_options(registry, strategy))
    every = {
        option for kind, each in found.items() if kind.startswith("option:") for option in each
    }
    return {**found, "option": sorted(every)}


def _options(registry: Any, strategy: str) -> Iterator[str]:
    from specdec.cli.describe import options_of
    from specdec.errors import SpecdecError

    try:
        rows = options_of(registry, strategy)
    except SpecdecError:  # a part of it is not installed
        return
    for row in rows:
        yield f"{row['role']}.{row['option']}"


def _installed() -> str:
    """Changes where a plugin or a version of one does."""
    from specdec import __version__

    entries = importlib.metadata.entry_points(group="specdec")
    plugins = sorted(
        (e.name, e.value, *((e.dist.name, e.dist.version) if e.dist else ())) for e in entries
    )
    told = json.dumps([__version__, str(Path(__file__)), plugins])
    return hashlib.sha256(told.encode()).hexdigest()
