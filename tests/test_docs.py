"""The code in the documentation runs as it is shown, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("specdec/**/*.md")])


def blocks(page: str, language: str = "python") -> list[str]:
    """The fenced code blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [code for kind, code in fenced if kind == language]


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


def test_the_plugin_of_the_tutorial_decodes_like_plain_decoding(tmp_path: Path) -> None:
    module, script = blocks("docs/writing-a-plugin.md")
    (tmp_path / "specdec_ngram.py").write_text(module, encoding="utf-8")
    loaded = "import specdec_ngram\n" + script.replace(
        'strategy="ngram",', 'strategy="ngram", plugins=[specdec_ngram],'
    )
    (tmp_path / "run.py").write_text(loaded, encoding="utf-8")
    assert run(tmp_path / "run.py").count("identical to plain decoding") == 6


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
