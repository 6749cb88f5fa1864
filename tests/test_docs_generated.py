"""Pages that are written from the code are what the code says, and lack nothing."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import ROOT

from specdec import Engine
from specdec.plugin import hookspecs
from specdec.plugin.components import Component
from specdec.plugin.registry import Registry

sys.path.append(str(ROOT / "scripts"))
import docstrings
import generated
import make_hooks_doc
import make_lines_table
import make_models_list
import make_options_doc
import make_refusals_doc

PAGES: dict[Path, Callable[[], str]] = {
    make_options_doc.PAGE: lambda: make_options_doc.page(Registry.load()),
    make_hooks_doc.PAGE: make_hooks_doc.page,
    make_models_list.PAGE: make_models_list.page,
    make_refusals_doc.PAGE: make_refusals_doc.page,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_what_the_code_says(page: Path) -> None:
    assert PAGES[page]() == page.read_text(encoding="utf-8"), "run `make docs`"


def test_the_shared_code_in_the_table_of_lines_is_used_by_no_other_method() -> None:
    files = [file for own in make_lines_table.SHARED.values() for file in own]
    modules = "|".join(re.escape(f"specdec.{file[:-3].replace('/', '.')}") for file in files)
    users = {
        path.relative_to(ROOT / folder).as_posix()
        for folder in ("plugins", "specdec")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(rf"\b({modules})\b", path.read_text(encoding="utf-8"))
    }
    methods = {user.partition("/")[0] for user in users - {*files, "models/heads/token_map.py"}}
    assert methods == {*make_lines_table.SHARED_BY}


@pytest.mark.parametrize("of", [Engine, Engine.generate], ids=["Engine", "generate"])
def test_every_argument_is_in_the_options(of: Callable[..., object]) -> None:
    text = make_options_doc.PAGE.read_text(encoding="utf-8")
    section = text.split("## Arguments of " + of.__name__ + "\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`\**(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.M))))
    assert set(inspect.signature(of).parameters) - {"self"} <= named
    assert of is Engine or named >= set(make_options_doc.ALONE)


def test_every_hook_has_its_signature_and_docstring_on_the_page() -> None:
    text = make_hooks_doc.PAGE.read_text(encoding="utf-8")
    names = [name for name in vars(hookspecs) if name.startswith("specdec_")]
    assert names == [hook.__name__ for hook in make_hooks_doc.hooks()] and names
    assert all(make_hooks_doc.section(hook) in text for hook in make_hooks_doc.hooks())


@pytest.mark.parametrize("change", ["missing", "surplus", "twice"])
def test_a_docstring_that_lacks_an_argument_or_has_another_is_refused(change: str) -> None:
    names = {"missing": ["first", "second", "third"], "surplus": ["first"]}.get(change)

    def of(first: int, second: int) -> None:
        """Something.

        Args:
            first: one.
            second: two.
        """

    if change == "twice":
        of.__doc__ = (of.__doc__ or "").replace("second:", "first:")
    with pytest.raises(ValueError, match="the docstring of"):
        list(docstrings.table(of, "Args", names or ["first", "second"], "argument"))


def test_a_part_is_written_between_its_marks_alone() -> None:
    text = "a\n<!-- x: scripts/s.py -->\nold\n<!-- /x -->\nb\n"
    assert generated.inserted(text, "x", "s.py", "new\n") == text.replace("old", "new")
    with pytest.raises(ValueError, match="marks"):
        generated.inserted("a\n", "x", "s.py", "new\n")


def test_references_in_docstrings_are_shown_as_code() -> None:
    assert docstrings.shown("see :class:`~a.b.C`,\n  :meth:`stream <a.D.e>`, ``f``") == (
        "see `C`, `a.D.e`, `f`"
    )
    assert Component.__doc__ and "`" in docstrings.shown(Component.__doc__)
