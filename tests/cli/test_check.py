"""``specdec check``: what it takes, what it says, and where it stops."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from specdec.cli.app import app
from specdec.errors import install_extra
from specdec.testing import Subject, suite

PLUGIN = '''
"""A strategy whose acceptor takes every draft token from the third level on."""

from specdec import Component, Strategy, hookimpl
from specdec.decoding.randomness import Key, Stream
from specdec.decoding.interfaces import Acceptor
from specdec.decoding.traversal import TreeTraversal
import torch


class Lossy(Acceptor):
    seed_exact = True

    def accept(self, tree, verification, randomness):
        traversal = TreeTraversal(tree, verification)
        for level in range(tree.depth + 1):
            distribution = verification.distribution(traversal.node, traversal.undecided)
            token = randomness.categorical(distribution, Key(Stream.TARGET, traversal.position))
            child = tree.child_with(traversal.node, token)
            if level >= 2 and traversal.branching:
                first = tree.children[:, :, 0].gather(1, traversal.node[:, None])[:, 0]
                child = torch.where(first >= 0, first, child)
                carried = tree.tokens.gather(1, child.clamp(min=0)[:, None])[:, 0]
                token = torch.where(child >= 0, carried, token)
            traversal.descend(child, token)
        return traversal.finish()


@hookimpl
def specdec_acceptors():
    return [Component("lossy", lambda _: Lossy(), description="wrong")]


@hookimpl
def specdec_strategies():
    return [Strategy("mine", drafter="draft_model", policy="chain", acceptor="lossy")]
'''


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "QUICK", 1)


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return str(path)


def test_a_lossy_acceptor_in_a_file_is_found_as_it_is_configured(
    plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "PATIENCE", 0.1)
    told = run("mine", "--quick", "--plugin", plugin)
    assert told.exit_code == 1, told.output
    first = told.output.splitlines()[0]
    assert first.startswith("mine: drafter draft_model") and "depth=4" in told.output[:300]
    assert "exact distribution" in told.output and "FAILS" in told.output
    assert "counter-example" in told.output
    assert "left out after the failure (--all goes on): whole sequences" in told.output
    assert "1 of 1 properties checked fail" in told.output


@pytest.mark.usefixtures("few")
def test_all_goes_on_after_a_failure(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "PATIENCE", 0.1)
    found = json.loads(run("mine", "--quick", "--all", "--plugin", plugin, "--json").stdout)
    assert not found["passed"] and found["left_out"] == []
    names = [one["name"] for one in found["properties"]]
    skipped = [one["name"] for one in found["skipped"]]
    assert sorted(names + skipped) == sorted(prop.name for prop in suite.PROPERTIES)


@pytest.mark.usefixtures("few")
def test_options_and_parts_are_those_that_are_checked() -> None:
    told = run(
        "draft_model",
        *("--quick", "--json", "--drafter", "table", "--policy", "sampled"),
        *("--acceptor", "rejection", "--verifier", "path"),
        *("-o", "policy.width=2", "-o", "policy.depth=2"),
    )
    found = json.loads(told.stdout)
    assert found["passed"] and found["strategy"] == "draft_model" and found["lossless"]
    assert "drafter table; policy sampled (depth=2, width=2, replacement=True)" in found["checked"]
    assert "verifier path; acceptor rejection" in found["checked"]
    assert "instead" not in found["checked"], "options that were given are not replaced"
    assert found["reach"]["levels_drafted"] == 2
    keys = ("name", "failure", "examples", "too_large", "largest", "seconds", "unit", "measured")
    assert {*keys, "figure"} <= set(found["properties"][0])


@pytest.mark.usefixtures("few")
def test_a_property_that_is_skipped_says_why() -> None:
    told = run("plain", "--quick")
    assert told.exit_code == 0
    assert "tree is the reference: skipped, it drafts nothing" in told.output
    assert "measured total variation: skipped, the acceptor says that it is lossless" in told.output


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["eagle2", "-o", "policy.budgte=3"], "budget"),
        (["eagle2", "-o", "budget"], "name=value"),
        (["eagle2", "-o", "tree.budget=3"], "unknown role 'tree'"),
        (["plain", "-o", "policy.depth=3"], "has no policy"),
        (["eagle2", "--policy", "eagle3"], "unknown policy 'eagle3'"),
        (["eagle2", "--verifier", "tre"], "did you mean 'tree'"),
        (["eagle2", "--plugin", "nowhere.py"], "a Python file that exists"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(given: list[str], said: str) -> None:
    told = run(*given, "--quick")
    assert told.exit_code == 2
    assert said in " ".join(told.output.split()) and "Traceback" not in told.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        ("def (", "SyntaxError"),
        ("x = 1", "has no hooks"),
    ],
)
def test_a_file_that_is_no_plugin_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text, encoding="utf-8")
    told = run("plain", "--plugin", str(path))
    assert told.exit_code == 2
    assert said in " ".join(told.output.split()) and "Traceback" not in told.output


def test_the_verdict_says_which_options_were_changed_for_the_suite(few: None) -> None:
    changed = "drafter.size_by_cost=False (used with True)"
    told = run("lookup", "--quick")
    assert told.exit_code == 0, told.output
    described, *_, verdict = told.output.strip().split("\n\n")
    assert changed in " ".join(described.split()) and changed in " ".join(verdict.split())


def test_options_that_are_used_are_not_said_to_be_changed() -> None:
    assert not Subject("lookup", options={"drafter": {"size_by_cost": False}}).changed
    assert not Subject("lookup", acceptor="rejection").changed
    assert not Subject("chain").changed


def test_without_hypothesis_the_command_says_how_to_install_it() -> None:
    code = (
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "sys.argv = ['specdec', 'check', 'plain', '--quick']\n"
        "from specdec.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert install_extra("test") in " ".join(done.stderr.split())
