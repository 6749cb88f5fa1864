"""The documentation as the tests read it: its pages and the code blocks in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FOLDERS = ("docs", "specdec", "plugins", "examples", "benchmarks", "scripts")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in _FOLDERS for page in ROOT.glob(f"{name}/**/*.md"))]
)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_NO_SHELL = ("python", "toml", "mermaid", "json", "yaml")
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


@dataclass(frozen=True)
class Command:
    """A command line on a page, in a block that is not Python.

    Attributes:
        page: its path in the repository.
        line: of the page.
        words: as a shell splits them; the program first.
    """

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def commands(program: str) -> list[Command]:
    """The lines of every page that run a program, in order; what is sent to a file is left out."""
    found = []
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
        for block in _FENCED.finditer(text):
            if block[1] in _NO_SHELL:
                continue
            code = block[2].replace("\\\n", "  ")  # as long as what it was
            for match in re.finditer(rf"^(?:\$ )?({program} .*)$", code, flags=re.MULTILINE):
                line = text.count("\n", 0, block.start(2) + match.start()) + 1
                for part in match[1].split(" && "):
                    words = shlex.split(part.split(" > ")[0], comments=True)
                    if words[0] == program:
                        found.append(Command(name, line, tuple(words)))
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


def anchors(page: Path) -> set[str]:
    """What a link to a page may end with: its headings, as GitHub names them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in headings]
    return {name.replace(" ", "-") for name in names}
