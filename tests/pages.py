"""The documentation as the tests read it: its pages and the code blocks in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("specdec/**/*.md")])
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str = "python") -> list[str]:
    """The fenced code blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for kind, code in _FENCED.findall(text) if kind == language]


def files(page: str) -> dict[str, list[str]]:
    """The code blocks below each heading that is a file name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    sections = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return {
        title: [code for _, code in _FENCED.findall(body)]
        for title, body in zip(sections[1::2], sections[2::2], strict=True)
        if re.fullmatch(r"\w+\.\w+", title)
    }
