"""The glossary and the public interface name the same things."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

import specdec

PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
PACKAGES = {"specdec": ROOT / "specdec", "specdec_plugins": ROOT / "plugins"}


def code_names() -> list[str]:
    """What stands in the column of the code."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| **")]
    return sorted({name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[2])})


def public(path: Path, *kinds: type[ast.ClassDef | ast.FunctionDef]) -> Iterator[str]:
    """The classes, or functions, that a module defines for others."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, kinds) and node.name[0] != "_":
            yield node.name


@cache
def places() -> dict[str, list[str]]:
    """For every public name the modules that have it."""
    found = {name: ["specdec"] for name in specdec.__all__}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            for name in public(path, ast.ClassDef, ast.FunctionDef):
                found.setdefault(name, []).append(".".join([package, *parts]))
    return found


def test_every_public_name_is_in_the_glossary() -> None:
    wanted = set(specdec.__all__) - {"__version__"}
    for folder in ("decoding", "drafting"):
        for path in (ROOT / "specdec" / folder).glob("*.py"):
            wanted |= set(public(path, ast.ClassDef))
    assert {"LevelDrafter", "Needs", "TreeBuilder"} <= wanted
    assert not wanted - {name.split(".")[0] for name in code_names()}


def has(owner: Any, name: str) -> bool:
    """Whether an object has a member, if only by annotation."""
    return hasattr(owner, name) or name in getattr(owner, "__annotations__", {})


@pytest.mark.parametrize("name", code_names())
def test_every_code_name_of_the_glossary_exists(name: str) -> None:
    if name.startswith("specdec."):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert has(importlib.import_module(module), attribute)
        return
    first, *members = name.split(".")
    owners = [getattr(importlib.import_module(place), first) for place in places().get(first, ())]
    assert owners, f"no module defines {first}"
    assert all(any(has(owner, member) for owner in owners) for member in members)
