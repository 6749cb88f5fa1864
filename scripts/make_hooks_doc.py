"""Write signatures and docstrings of the hooks, and the fields of what they return, into
docs/hooks.md; --check fails if they are stale."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import docstrings
import generated

from specdec.decoding.generation_info import GenerationInfo
from specdec.plugin import components, hookspecs
from specdec.testing import DrafterSupport, PolicySupport

PAGE = Path(__file__).parent.parent / "docs" / "hooks.md"
# What hooks return or are given; Step is in docs/api/step.md.
CLASSES = (
    components.Component,
    components.Strategy,
    components.ModelAlias,
    components.Trainer,
    components.CheckpointKind,
    DrafterSupport,
    PolicySupport,
    GenerationInfo,
)


def page() -> str:
    """The whole page."""
    text, script = PAGE.read_text(encoding="utf-8"), Path(__file__).name
    for hook in hooks():
        text = generated.inserted(text, hook.__name__, script, section(hook))
    return generated.inserted(text, "classes", script, "\n".join(map(fields, CLASSES)))


def hooks() -> Iterator[FunctionType]:
    """Every hook, in the order of the code."""
    for name, hook in vars(hookspecs).items():
        if name.startswith("specdec_") and inspect.isfunction(hook):
            yield hook


def section(hook: FunctionType) -> str:
    """The signature of a hook and its docstring."""
    marked: Any = getattr(hook, f"{components.PROJECT}_spec")
    first = " The first answer that is not None counts." if marked["firstresult"] else ""
    signature = str(inspect.signature(hook)).replace("'", "")  # annotations are strings
    return f"`{hook.__name__}{signature}`\n\n{docstrings.shown(hook.__doc__ or '')}{first}\n"


def fields(of: type) -> str:
    """The fields of a class, with what its docstring says of each."""
    own: Any = of
    names = [each.name for each in dataclasses.fields(own)]
    lines = docstrings.table(of, "Attributes", names, "field")
    says = docstrings.shown((of.__doc__ or "").partition("\n\n")[0])
    return f"### {of.__name__}\n\n{says}\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(generated.main(__doc__, PAGE, page))
