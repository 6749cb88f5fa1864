"""Extension of griffe: docstrings refer to code as Sphinx does, the site links it where it can."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`([^`]+)`")


def reference(match: re.Match[str]) -> str:
    """A link to what the site describes, and the bare name of what it does not."""
    text, target = re.fullmatch(r"(?:(.*?)\s*<)?~?([\w.()]+)>?", match[1]).groups()
    shown = text or (target.rpartition(".")[2] if "~" in match[1] else target)
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'


class RolesInDocstrings(Extension):
    """``:class:`~specdec.engine.Engine``` becomes a link named ``Engine``."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = ROLE.sub(reference, obj.docstring.value)
