"""What the shell offers at TAB."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specdec.plugin.registry import Registry

Command = Callable[..., Any]


@pytest.fixture
def offered(run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """What bash would be offered for a command line that ends where the cursor is."""
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path))

    def complete(*words: str) -> list[str]:
        line = ["specdec", *words]
        result = run(
            prog_name="specdec",
            env={
                "_SPECDEC_COMPLETE": "complete_bash",
                "COMP_WORDS": " ".join(line),
                "COMP_CWORD": str(len(line) - 1),
                "SPECDEC_CACHE": str(tmp_path),
            },
        )
        found: list[str] = result.stdout.split()
        return found

    return complete


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["generate", "--strategy", ""], ["auto", "eagle2", "plain", "lookup"]),
        (["generate", "-s", "eag"], ["eagle2", "eagle3"]),
        (["generate", "-m", ""], ["chat-7m", "smollm2"]),
        (["generate", "--acceptor", ""], ["match", "rejection", "typical"]),
        (["generate", "--compare", "eagle2,ch"], ["eagle2,chain"]),
        (["generate", "-s", "eagle2", "-o", "policy.b"], ["policy.budget="]),
        (["generate", "--explai"], ["--explain"]),
        (["bench", "--strategies", "stat"], ["static_tree"]),
        (["bench", "-o", "policy.b"], ["policy.budget="]),
        (["check", "eag"], ["eagle2", "eagle3"]),
        (["train", ""], ["eagle", "medusa", "hydra", "draft-model"]),
        (["options", "typ"], ["typical"]),
        (["doc"], ["doctor"]),
    ],
    ids=" ".join,
)
def test_names_are_offered(offered: Command, words: list[str], some: list[str]) -> None:
    found = set(offered(*words))
    assert found.issuperset(some)
    assert all(name.startswith(words[-1].split("=")[0]) for name in found)


def test_options_are_those_of_the_strategy(offered: Command) -> None:
    own = offered("generate", "-s", "plain", "-o", "")
    registry = Registry.load()
    budget = "policy.budget="
    assert budget in offered("generate", "-s", "eagle2", "-o", "") and budget not in own
    assert registry.strategies["plain"].policy is None


def test_what_is_kept_is_asked_again_when_something_else_is_installed(
    offered: Command, tmp_path: Path
) -> None:
    first = offered("check", "")
    file = tmp_path / "completion.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "names": {**kept["names"], "strategy": ["kept"]}}))
    assert offered("check", "") == ["kept"]
    file.write_text(json.dumps({"installed": "other", "names": {"strategy": ["gone"]}}))
    assert offered("check", "") == first
    file.write_text("no JSON")
    assert offered("check", "") == first


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_script_for_the_shell_is_shown(
    run: Command, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    done = run("--show-completion", prog_name="specdec")
    assert done.exit_code == 0, done.output
    assert f"_SPECDEC_COMPLETE=complete_{shell}" in done.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n", "-c", done.stdout], check=True)


def test_a_script_for_the_shell_can_be_installed(run: Command) -> None:
    assert "--install-completion" in run("--help").stdout


def test_offering_names_that_are_kept_imports_no_torch(offered: Command, tmp_path: Path) -> None:
    offered("check", "")
    code = (
        "import sys\n"
        "from specdec.cli.app import app\n"
        "from specdec.cli import completion\n"
        "assert 'eagle2' in completion.named('strategy')('')\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} imported' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
