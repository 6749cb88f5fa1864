"""The package under examples/: it builds, installs beside specdec and keeps the contract."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import ROOT, blocks

from examples import examples
from specdec import Engine
from specdec.testing import Subject
from specdec.testing.suite import PROPERTIES, QUICK, check

EXAMPLE = ROOT / "examples" / "specdec-ngram"
MODULE = EXAMPLE / "specdec_ngram.py"
TUTORIAL = "docs/writing-a-plugin.md"
texts = st.lists(st.integers(0, 1), min_size=1, max_size=7)


# What is run where the example is installed, all of it in one process: most of its time is imports.
RUNS = """
import contextlib, io, json, runpy, sys
from specdec.testing import suite

suite.QUICK = int(sys.argv[1])
runs = json.loads(sys.argv[2])
told = {}
for name, (how, *arguments) in runs.items():
    sys.argv = arguments
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            {"module": runpy.run_module, "script": runpy.run_path}[how](
                arguments[0], run_name="__main__"
            )
            status = 0
        except SystemExit as end:
            status = end.code or 0
    told[name] = int(status), out.getvalue()
print(json.dumps(told))
"""
TESTS = ["-p", "no:cacheprovider", "--specdec-examples", "2", "--junitxml", "report.xml"]


class Installed:
    """The example in a folder of its own that Python finds it in, and an empty place to work."""

    def __init__(self, site: Path, place: Path) -> None:
        self.place = place
        searched = [str(site), os.environ.get("PYTHONPATH", "")]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, searched))}

    def run(self, runs: dict[str, list[str]], quick: int) -> dict[str, str]:
        """What every run prints; each must succeed.

        Args:
            runs: by name ``"module"`` or ``"script"``, then what ``sys.argv`` is to be.
            quick: examples of ``specdec check --quick``.
        """
        done = subprocess.run(
            [sys.executable, "-c", RUNS, str(quick), json.dumps(runs)],
            cwd=self.place,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert not {name: out for name, (status, out) in told.items() if status}, done.stderr
        return {name: out for name, (_, out) in told.items()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The example, built from a copy of its sources; the environment stays as it is."""
    source, site, place = (tmp_path_factory.mktemp(name) for name in ("source", "site", "place"))
    shutil.copytree(EXAMPLE, source, dirs_exist_ok=True)
    # setuptools comes with the test tools: nothing is downloaded.
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--check-build-dependencies", "--target", site, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Installed(site, place)


@pytest.fixture(scope="module")
def told(installed: Installed) -> dict[str, str]:
    """What the command line, the example's own tests and the tutorial's script print."""
    shutil.copy(EXAMPLE / "test_specdec_ngram.py", installed.place)
    (script,) = [block for block in blocks(TUTORIAL) if 'Engine(strategy="ngram"' in block]
    (installed.place / "run.py").write_text(script, encoding="utf-8")
    return installed.run(
        {
            "plugins": ["module", "specdec.cli", "plugins", "--json"],
            "check": ["module", "specdec.cli", "check", "ngram", "--quick"],
            "script": ["script", "run.py"],
            "tests": ["module", "pytest", *TESTS, "test_specdec_ngram.py"],
        },
        quick=2,
    )


def module_of(path: Path) -> ModuleType:
    """What a file defines, under no name that could be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def continuation(text: list[int], match: int, depth: int) -> list[int]:
    """Search from the longest match to the shortest, from the latest to the earliest."""
    for size in range(min(match, len(text) - 1), 0, -1):
        for end in range(len(text) - 1, size - 1, -1):
            if text[end - size : end] == text[-size:]:
                drafted = list(text)
                for _ in range(depth):
                    drafted.append(drafted[end - len(text)])
                return drafted[len(text) :]
    return []


def test_it_is_found_by_its_entry_point(told: dict[str, str]) -> None:
    listed = json.loads(told["plugins"])
    (plugin,) = [entry for entry in listed["plugins"] if entry["name"] == "ngram"]
    assert plugin["origin"] == "specdec-ngram 0.1.0"


@pytest.mark.usefixtures("told")
def test_its_own_tests_pass(installed: Installed) -> None:
    report = (installed.place / "report.xml").read_text(encoding="utf-8")
    examples = [int(count) for count in re.findall(r'name="examples" value="(\d+)"', report)]
    most = max(prop.cases_of(2) for prop in PROPERTIES)
    assert len(examples) > 10 and max(examples) <= most


def test_specdec_check_finds_nothing(told: dict[str, str]) -> None:
    assert "every property holds" in told["check"]


@pytest.mark.slow
def test_specdec_check_finds_nothing_on_many_examples(installed: Installed) -> None:
    runs = {"check": ["module", "specdec.cli", "check", "ngram", "--quick"]}
    assert "every property holds" in installed.run(runs, quick=QUICK)["check"]


def test_the_script_of_the_tutorial_drafts_and_decodes_like_plain_decoding(
    told: dict[str, str],
) -> None:
    lines = told["script"].splitlines()
    assert len(lines) == 4
    assert all(line.endswith("identical to plain decoding") for line in lines)
    assert max(float(line.split("tau ")[1].split(",")[0]) for line in lines) > 1.5


def test_the_plugin_takes_less_than_forty_lines() -> None:
    lines = MODULE.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) < 40


@pytest.fixture(scope="module")
def lookup(model: Any) -> Engine:
    return Engine(model, strategy="ngram", plugins=[module_of(MODULE)])


@examples(30, many=200)
@given(st.lists(texts, min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 6))
def test_it_drafts_what_followed_the_latest_of_the_longest_matches(
    lookup: Engine, prompts: list[list[int]], match: int, depth: int
) -> None:
    engine = lookup.with_strategy("ngram", options={"drafter": {"match": match, "depth": depth}})
    tree = next(iter(engine.session().start(prompts, max_new_tokens=10))).tree
    for row, prompt in enumerate(prompts):
        drafted = tree.tokens[row, 1:][tree.valid[row, 1:]].tolist()
        assert drafted == continuation(prompt, match, depth)


def test_the_contract_finds_the_mistake_that_the_tutorial_shows(tmp_path: Path) -> None:
    source = MODULE.read_text(encoding="utf-8")
    broken = tmp_path / MODULE.name
    broken.write_text(source.replace("state.root()", "text[:, -1]"), encoding="utf-8")
    subject = Subject("ngram", plugins=[module_of(broken)])
    (prop,) = [prop for prop in PROPERTIES if prop.name == "trees_are_well_formed"]
    failure = check(subject, prop, examples=40).failure
    shown = (ROOT / TUTORIAL).read_text(encoding="utf-8")
    mistake = "the root is not the last token"
    assert failure is not None and mistake in failure and mistake in shown
