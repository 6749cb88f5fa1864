"""What docstrings say of arguments and attributes, for the pages that are made from the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from typing import Any

import generated

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`(~?)(?:[^`<]*<)?([\w.]+)>?`")

HEADS = {"Args": "what it does", "Attributes": "what it is"}


def shown(text: str) -> str:
    """A docstring's words on one line, as Markdown."""
    text = ROLE.sub(lambda m: f"`{m[2].rpartition('.')[2] if m[1] else m[2]}`", text)
    return " ".join(text.split()).replace("``", "`")


def table(of: Any, section: str, names: Collection[str], head: str) -> Iterator[str]:
    """A row for each entry of a section of a docstring.

    Args:
        of: a class or function.
        section: ``Args`` or ``Attributes``.
        names: that the section must have.
        head: of the first column.

    Raises:
        ValueError: some are missing there, or there are others.
    """
    said = inspect.cleandoc(of.__doc__ or "").partition(f"{section}:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w[\w, *]*): (.+(?:\n {8}.+)*)", said, flags=re.MULTILINE)
    found = [name.lstrip("*") for each, _ in entries for name in each.split(", ")]
    if not found or sorted(found) != sorted(names):
        raise ValueError(f"the docstring of {of.__qualname__} has {found}, it has {list(names)}")
    rows = [
        (", ".join(f"`{one}`" for one in each.split(", ")), shown(text)) for each, text in entries
    ]
    return generated.table((head, HEADS[section]), rows)
