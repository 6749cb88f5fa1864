"""The documentation as the tests read it: its pages and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FOLDERS = ("docs", "specdec", "plugins", "examples", "benchmarks", "scripts")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in _FOLDERS for page in ROOT.glob(f"{name}/**/*.md"))]
)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(
    r"^(?:<!-- needs ([^\n]*) -->\n)?[ \t]*(?:```|~~~)[ ]*(?:python|py|pycon)\b[^\n]*\n"
    r"(.*?)^[ \t]*(?:```|~~~)$",
    flags=re.MULTILINE | re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True)
class Snippet:
    """A block of Python on a page.

    Attributes:
        page: its path in the repository.
        line: of the page, where it begins.
        needs: what it does not run without, from the comment above it, ``<!-- needs ... -->``.
    """

    page: str
    line: int
    code: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def snippets() -> list[Snippet]:
    """The Python of every page, in order."""
    found = []
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
        for match in _PYTHON.finditer(text):
            line = text.count("\n", 0, match.start(2)) + 1
            found.append(Snippet(name, line, match[2], match[1]))
    return found


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
