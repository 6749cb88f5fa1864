"""Hook of mkdocs: pages of the repository outside docs/ that pages in docs/ link to.

They keep their links to each other on GitHub, so they are written as files of the repository; on
the site they lie under ``repository/``, and the links are rewritten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?!\w+://|mailto:|#)([^)#\s]+)")
CODE = re.compile(r"^(```|~~~).*?^\1\s*$|`[^`\n]*`", flags=re.MULTILINE | re.DOTALL)
OUTSIDE = "repository"


def file_of(source: Path, target: str) -> Path:
    """The file of the repository that a link leads to; of a folder its README."""
    path = Path(os.path.normpath(source.parent / target))
    return path / "README.md" if path.is_dir() else path


def place(path: Path) -> str:
    """A file's path on the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"{OUTSIDE}/{path.relative_to(ROOT).as_posix()}"


def source_of(place: str) -> Path:
    """The file behind a path on the site."""
    outside = place.startswith(f"{OUTSIDE}/")
    return ROOT / place[len(OUTSIDE) + 1 :] if outside else DOCS / place


def links(path: Path) -> Iterator[Path]:
    """The files that a page links to."""
    text = CODE.sub("", path.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        yield file_of(path, match[1])


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked from a page, and from what is linked, and lies elsewhere."""
    seen = {source_of(file.src_uri) for file in files}
    open_pages = [path for path in seen if path.suffix == ".md"]
    while open_pages:
        for target in links(open_pages.pop()):
            if target in seen or not target.is_file():
                continue  # mkdocs says what does not exist
            seen.add(target)
            files.append(
                File.generated(
                    config,
                    place(target),
                    abs_src_path=str(target),
                    inclusion=InclusionLevel.NOT_IN_NAV,
                )
            )
            if target.suffix == ".md":
                open_pages.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at the places that files have on the site."""
    source = source_of(page.file.src_uri)
    here = Path(place(source)).parent

    def moved(match: re.Match[str]) -> str:
        return os.path.relpath(place(file_of(source, match[1])), here)

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(moved, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(moved, markdown[end:])])
