"""Extension of griffe: docstrings as Sphinx reads them, for the site.

References to code become links where the site describes what they name, and a section ``Example``
is one of examples.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`([^`]+)`")

EXAMPLE = re.compile(r"^Example:$", flags=re.MULTILINE)


def reference(match: re.Match[str]) -> str:
    """A link to what the site describes, and the bare name of what it does not."""
    text, target = re.fullmatch(r"(?:(.*?)\s*<)?~?([\w.()]+)>?", match[1]).groups()
    shown = text or (target.rpartition(".")[2] if "~" in match[1] else target)
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'


class DocstringsForSite(Extension):
    """``:class:`~specdec.engine.Engine``` becomes a link named ``Engine``."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            text = EXAMPLE.sub("Examples:", obj.docstring.value)
            obj.docstring.value = ROLE.sub(reference, text)
