"""The distribution: what it holds, and that it works where nothing of the checkout is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT

import specdec
from specdec.errors import DISTRIBUTION

TREES = {"specdec": "specdec", "plugins": "specdec_plugins"}
LARGEST = 60 << 20  # bytes of the wheel; the registry takes 100 MB
BUILD = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"
MAIN_JOB = """
import sys, specdec, specdec_plugins
from specdec import Engine

assert not any("{root}" in path for path in sys.path), sys.path
engine = Engine()
settings = dict(max_new_tokens=24, temperature=1.0, seed=7)
drafted = engine.generate("Once upon a time", **settings)
plain = engine.with_strategy("plain").generate("Once upon a time", **settings)
assert drafted.token_ids == plain.token_ids and drafted.stats.tau > 1
print(specdec.__file__)
"""


def build(kind: str, folder: Path, sources: Path) -> Path:
    """The path of a ``wheel`` or ``sdist``; setuptools comes with the test tools."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind, str(folder))],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git knows: the checkout stays as it is."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("sdist")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in names.stdout.splitlines():
        if (source := ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(source, copy / name)
    return build("sdist", out, copy)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as the registry's users would."""
    unpacked, out = tmp_path_factory.mktemp("unpacked"), tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(unpacked, filter="data")
        else:
            archive.extractall(unpacked)
    (folder,) = unpacked.iterdir()
    return build("wheel", out, folder)


def test_the_name_of_the_distribution_is_said_once() -> None:
    """In pyproject.toml for pip, and in the errors that name an extra."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'^\[project\]\nname = "(.*?)"', project, re.MULTILINE) == [DISTRIBUTION]
    own = re.findall(r'"(specdec[a-z-]*)\[\w+\]"', project)
    assert own and set(own) == {DISTRIBUTION}


def test_no_page_and_no_message_names_the_other_project() -> None:
    wrong = re.compile(r"\bspecdec\[|pip install (?:-\S+ )*['\"]?specdec(?![\w-])")
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    files = [*pages, *(path for tree in TREES for path in (ROOT / tree).rglob("*.py"))]
    assert wrong.search("pip install specdec`") and wrong.search("'specdec[otel]'")
    assert not [path for path in files if wrong.search(path.read_text(encoding="utf-8"))]
    asked = ROOT.joinpath("specdec/hf/hub/custom_generate/requirements.txt").read_text("utf-8")
    assert asked.split() == [DISTRIBUTION]


def test_every_extra_is_on_the_page_of_installing() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    table = page.partition("## Extras")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted(re.findall(r"^([\w-]+) = \[", extras, re.MULTILINE))


def test_the_registry_is_given_no_link_to_a_file() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    described = re.findall(r'^readme = \{.*?"""\n(.*?)"""', project, re.MULTILINE | re.DOTALL)
    assert len(described) == 1 and "](" not in described[0]


def test_every_package_is_in_the_distribution() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^packages = \[\n(.*?)\]", project, flags=re.MULTILINE | re.DOTALL)
    packages = {
        ".".join([installed, *path.parent.relative_to(ROOT / source).parts])
        for source, installed in TREES.items()
        for path in (ROOT / source).rglob("__init__.py")
    }
    listed = set(re.findall(r'"(.*?)"', block))
    assert packages == listed


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    known = subprocess.run(
        ["git", "ls-files", *TREES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = set()
    for name in known.stdout.splitlines():
        source, _, rest = name.partition("/")
        wanted.add(f"{TREES[source]}/{rest}")
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
    info = {name for name in found if ".dist-info/" in name}
    assert found - info == wanted
    assert any(name.endswith("licenses/LICENSE") for name in info)
    assert wheel.name == f"specdec_transformers-{specdec.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < LARGEST


@pytest.mark.slow
def test_an_installed_wheel_does_the_main_job_without_the_checkout(
    wheel: Path, tmp_path: Path
) -> None:
    """In an environment of its own that finds torch and the rest where they are installed."""
    folder, home = tmp_path / "environment", tmp_path / "home"
    home.mkdir()
    venv.create(folder, symlinks=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", variables))
    bin_ = folder / "bin"
    python = str(bin_ / "python")
    others = {path for path in sys.path if path.endswith("site-packages")}
    (site / "others.pth").write_text("\n".join(sorted(others)))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps"]
    # What is installed editable there would be found first by its finder.
    environment = {**os.environ, "HOME": str(home), "SPECDEC_CACHE": str(home)}
    environment.pop("PYTHONPATH", None)

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(*pip, "--no-index", "--ignore-installed", str(wheel))
    printed = run(python, "-W", "error::UserWarning", "-c", MAIN_JOB.format(root=ROOT))
    assert str(folder) in printed
    plugins: dict[str, Any] = json.loads(run(str(bin_ / "specdec"), "plugins", "--json"))
    own = {p["name"]: p for p in plugins["plugins"] if p["origin"].startswith(DISTRIBUTION)}
    assert {"builtin", "eagle", "eagle2", "auto", "medusa"} <= own.keys()
    assert not [p for p in own.values() if p["error"]]
    asked = ["generate", "Hi", "--max-new-tokens", "8", "--repeat", "1", "--json"]
    answer = json.loads(run(str(bin_ / "specdec"), *asked))
    assert answer["identical"] is True
