"""The code in the documentation runs as it is shown, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pages import PAGES, ROOT, blocks, files

from specdec.testing import Subject
from specdec.testing.suite import PROPERTIES, check

TUTORIAL = "docs/writing-a-plugin.md"
EXAMPLE = ROOT / "examples" / "specdec-ngram"


def run(script: Path) -> str:
    """What a script prints; it must succeed."""
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "marker",
    ["engine.stream(messages", "def specdec_strategies"],
    ids=["the example", "a strategy"],
)
def test_python_in_the_readme_runs(marker: str, tmp_path: Path) -> None:
    (code,) = [block for block in blocks("README.md") if marker in block]
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    assert run(script).strip()


def test_a_strategy_in_the_readme_takes_less_than_forty_lines() -> None:
    (code,) = [block for block in blocks("README.md") if "def specdec_strategies" in block]
    plugin = code.split("\nengine = ")[0]
    assert len([line for line in plugin.splitlines() if line.strip()]) < 40


def test_the_files_in_the_tutorial_are_the_files_of_the_example() -> None:
    shown = files(TUTORIAL)
    package = {path.name: path for path in EXAMPLE.iterdir() if path.suffix in (".py", ".toml")}
    assert shown.keys() == package.keys()
    for name, path in package.items():
        assert shown[name] == [path.read_text(encoding="utf-8")], name


def test_the_reference_in_the_tutorial_is_the_policy_of_the_hooks_page() -> None:
    (policy,) = [block for block in blocks("docs/hooks.md") if "class Wide" in block]
    (contract,) = [block for block in blocks(TUTORIAL) if "class TestWide" in block]
    plugin = ModuleType("wide")
    imports = (
        "from specdec import Component, hookimpl\n"
        "from specdec.growth import grow_level\n"
        "from specdec.roles import TreePolicy\n"
    )
    exec(imports + policy + contract, vars(plugin))  # noqa: S102
    wide: Any = plugin
    names = {role: getattr(wide.TestWide, role) for role in ("strategy", "drafter", "policy")}
    (prop,) = [prop for prop in PROPERTIES if prop.name == "tree_is_the_reference"]

    def fails(reference: Any) -> bool:
        subject = Subject(**names, reference=reference, plugins=[plugin])
        return check(subject, prop, examples=20, shrink=False).failure is not None

    assert not fails(wide.TestWide.reference)
    assert fails(lambda options, levels, children: wide.wide(options, 1, children))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


def test_the_layout_in_the_architecture_is_the_layout() -> None:
    (layout,) = [b for b in blocks("docs/architecture.md", "") if b.startswith("specdec/")]
    core = layout.split("\nplugins/")[0]
    named = set(re.findall(r"^  (\w+)\.py", core, flags=re.MULTILINE))
    assert named == {path.stem for path in (ROOT / "specdec").glob("*.py")}
