"""The distribution: what it holds, and that it works where nothing of the checkout is."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pages import PAGES, ROOT

import specdec
from specdec.errors import DISTRIBUTION

TREES = {"specdec": "specdec", "plugins": "specdec_plugins"}
LARGEST = 60 << 20  # bytes of the wheel; the registry takes 100 MB
BUILD = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"
MAIN_JOB = """
import sys, specdec, specdec_plugins
from specdec import Engine

assert "{root}" not in sys.path, sys.path  # an environment within it may be
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


# Modules whose distribution has another name.
DISTRIBUTIONS = {"PIL": "matplotlib", "opentelemetry": "opentelemetry-api", "pyarrow": "ray"}
# Imported where they are there, and not asked for: an error says how to get them.
NOT_ASKED_FOR = {"datasets"}
# Scripts that run in environments of their own, beside what specdec is compared with.
WORKERS = "specdec/bench/peers/worker_"
# Loaded by the suite of tests alone, which the extra "test" brings.
TEST_TOOLS = "specdec/testing/"


def requirements() -> dict[str, set[str]]:
    """Names of the distributions that are asked for, by extra; ``""``: always."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    always = re.findall(r"^dependencies = (\[.*?^\])", project, re.MULTILINE | re.DOTALL)[0]
    extras = project.partition("[project.optional-dependencies]\n")[2].partition("\n\n")[0]
    found = {"": always, **dict(re.findall(r"^([\w-]+) = (\[.*?\]$)", extras, re.M | re.DOTALL))}
    return {
        extra: {Requirement(each).name for each in ast.literal_eval(text)}
        for extra, text in found.items()
    }


def imports(node: ast.AST, *, later: bool = False) -> Iterator[tuple[str, bool]]:
    """Top names of what a module imports, and whether only in a function or a branch."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((name.name.partition(".")[0], later) for name in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield (child.module or "").partition(".")[0], later
        branch = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.If, ast.Try))
        yield from imports(child, later=later or branch)


def imported() -> Iterator[tuple[str, str, bool]]:
    """Of the packages: a file, the distribution that it imports, and whether only later."""
    for tree in TREES:
        for path in (ROOT / tree).rglob("*.py"):
            place = path.relative_to(ROOT).as_posix()
            for name, later in imports(ast.parse(path.read_text(encoding="utf-8"))):
                own = name in TREES.values() or name in sys.stdlib_module_names
                if not own and not place.startswith(WORKERS):
                    yield place, DISTRIBUTIONS.get(name, name.replace("_", "-")), later


def test_what_is_imported_is_asked_for() -> None:
    """At the top of a module by every installation, within a function at least by an extra."""
    asked = requirements()
    extras = set().union(*asked.values()) | NOT_ASKED_FOR
    assert not {
        (place, name)
        for place, name, later in imported()
        if name not in (extras if later or place.startswith(TEST_TOOLS) else asked[""])
    }


def test_what_is_asked_for_is_imported() -> None:
    used = {name for _, name, _ in imported()}
    assert len(requirements()[""]) > 8 and not requirements()[""] - used


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
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_installed_does_the_main_job_without_the_checkout(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In an environment of its own that finds torch and the rest where they are installed; an sdist
    is built there, by the setuptools that it finds."""
    archive = request.getfixturevalue(kind)
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

    run(*pip, "--no-index", "--no-build-isolation", "--ignore-installed", str(archive))
    printed = run(python, "-W", "error::UserWarning", "-c", MAIN_JOB.format(root=ROOT))
    assert str(folder) in printed
    plugins: dict[str, Any] = json.loads(run(str(bin_ / "specdec"), "plugins", "--json"))
    own = {p["name"]: p for p in plugins["plugins"] if p["origin"].startswith(DISTRIBUTION)}
    assert {"builtin", "eagle", "eagle2", "auto", "medusa"} <= own.keys()
    assert not [p for p in own.values() if p["error"]]
    asked = ["generate", "Hi", "--max-new-tokens", "8", "--repeat", "1", "--json"]
    answer = json.loads(run(str(bin_ / "specdec"), *asked))
    assert answer["identical"] is True
