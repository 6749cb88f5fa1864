"""Write what the drop-in refuses into docs/transformers.md; --check fails if that is stale."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import generated

from specdec.hf.refusals import DROPPED, HONOURED, REFUSED, WITHOUT_EFFECT
from specdec.request.generation_fields import HARMLESS, Fields

PAGE = Path(__file__).parent.parent / "docs" / "transformers.md"


def page() -> str:
    """The whole page."""
    text = PAGE.read_text(encoding="utf-8")
    refused = {name: why for name, (_, why) in REFUSED.items()} | DROPPED
    differ = sorted(HONOURED - set(Fields.model_fields) - set(HARMLESS))
    parts = {
        "refused": table("why, and what to do", refused.items()),
        "without effect": table("why it has none", WITHOUT_EFFECT.items()),
        "fields of the drop-in alone": ", ".join(f"`{name}`" for name in differ) + "\n",
    }
    for name, body in parts.items():
        text = generated.inserted(text, name, Path(__file__).name, body)
    return text


def table(head: str, rows: Iterable[tuple[str, str]]) -> str:
    """A row for each argument."""
    cells = ((f"`{name}`", re.sub(r"decoder[(].*?[)]", code, why)) for name, why in rows)
    return "\n".join(generated.table(("argument", head), cells)) + "\n"


def code(match: re.Match[str]) -> str:
    """A call as Markdown shows code."""
    return f"`{match[0]}`"


if __name__ == "__main__":
    sys.exit(generated.main(__doc__, PAGE, page))
