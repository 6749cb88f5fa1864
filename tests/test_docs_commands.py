"""The commands in the documentation exist, with these options, and run: only smaller.

Those of docs/training.md are run by tests/training/test_page.py, one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import typer
from pages import PAGES, ROOT, Command, commands, snippets
from typer.testing import CliRunner

from specdec.cli.app import app
from specdec.testing import suite

SPECDEC = commands("specdec")
# Read here, not run: the commands of a page, and those that begin so. Where they are run, or why
# nowhere.
PAGES_ELSEWHERE = {
    "docs/training.md": "tests/training/test_page.py",
    "docs/batch-jobs.md": "tests/cli/test_batch.py",
    "docs/serving.md": "tests/cli/test_checkpoint_commands.py",  # and tests/test_serving.py on vLLM
    "examples/specdec-ngram/README.md": "tests/test_example.py",
    "scripts/README.md": "hours",
    "specdec/models/smollm2/eagle/README.md": "hours",
    "specdec/models/smollm2/eagle3/README.md": "hours",
    "specdec/models/smollm2/medusa/README.md": "hours",
    "specdec/models/smollm2/hydra/README.md": "hours",
}
BEGINNINGS_ELSEWHERE = {
    "specdec --install-completion": "tests/cli/test_completion.py",  # it changes the reader's shell
    "specdec check ngram": "tests/test_example.py",
    "specdec generate --strategy ngram": "tests/test_example.py",  # the strategy, in Python
    "specdec bench paper": "tests/cli/test_bench_paper.py",
    "specdec bench --data PROMPTS": "tests/cli/test_bench_command.py",
    "specdec inspect path/to/head": "tests/cli/test_checkpoint_commands.py",
    "specdec convert path/to/head": "tests/cli/test_checkpoint_commands.py",
}
SMALL = {
    "generate": ["--max-new-tokens", "3", "--repeat", "1"],
    "trace": ["--max-new-tokens", "3"],
    "bench": ["--prompts", "1", "--max-new-tokens", "3", "--repetitions", "1"],
}


def begins(command: Command, beginning: str) -> bool:
    """Whether a command has these words first."""
    words = tuple(beginning.split())
    return command.words[: len(words)] == words


def is_run(command: Command) -> bool:
    """Whether it is run here."""
    elsewhere = any(begins(command, each) for each in BEGINNINGS_ELSEWHERE)
    return command.page not in PAGES_ELSEWHERE and not elsewhere


def test_what_is_not_run_here_is_on_a_page_and_its_test_exists() -> None:
    assert PAGES_ELSEWHERE.keys() <= {command.page for command in SPECDEC}
    for beginning in BEGINNINGS_ELSEWHERE:
        own = [command for command in SPECDEC if command.page not in PAGES_ELSEWHERE]
        assert any(begins(command, beginning) for command in own), beginning
    tests = {*PAGES_ELSEWHERE.values(), *BEGINNINGS_ELSEWHERE.values()} - {"hours"}
    assert all((ROOT / test).is_file() for test in tests)


@pytest.mark.parametrize("command", SPECDEC, ids=str)
def test_a_command_is_one_of_specdecs_with_options_that_it_has(command: Command) -> None:
    named, arguments = typer.main.get_command(app), list(command.words[1:])
    while arguments and arguments[0] in (below := getattr(named, "commands", {})):
        named = below[arguments.pop(0)]
    assert len(arguments) < len(command.words) - 1 or command.words[1].startswith("--")
    known = {name for each in named.params for name in (*each.opts, *each.secondary_opts)}
    used = {word for word in command.words[1:] if re.fullmatch(r"--?[a-z][\w-]*", word)}
    assert not used - known


@pytest.fixture(scope="module")
def place(model: Any, tokenizer: Any, head: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages take for granted: a model, a head for it, plugins of recipes."""
    folder = tmp_path_factory.mktemp("place")
    tiny.save_model(model, folder / "my-model")
    tokenizer.save_pretrained(folder / "my-model")
    (folder / "head").symlink_to(head)
    for command in SPECDEC:
        if "--plugin" in command.words:
            name = command.words[command.words.index("--plugin") + 1]
            (folder / name).write_text(plugin(command.page, name), encoding="utf-8")
    return folder


def plugin(page: str, name: str) -> str:
    """The file that a page tells to save: the blocks that say what ``name`` is, but no run."""
    stem = Path(name).stem
    own = [each.code for each in snippets() if each.page == page and f'"{stem}"' in each.code]
    parts = [re.split(r"^(?:engine = |class Test)", code, flags=re.MULTILINE)[0] for code in own]
    return "\n\n".join(part for part in parts if "@hookimpl" in part)


RUN = {each.words: each for each in SPECDEC if is_run(each)}  # each once


@pytest.mark.parametrize("command", RUN.values(), ids=str)
def test_a_command_runs(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(suite, "QUICK", 1)
    arguments = [{"smollm2": "my-model"}.get(word, word) for word in command.words[1:]]
    kind = arguments[0]
    if kind in ("generate", "trace") and "my-model" in arguments:
        arguments[1 if arguments[1] != "-m" else 3] = "ABC"  # the tiny tokenizer has few letters
    done = CliRunner().invoke(app, [*arguments, *SMALL.get(kind, [])], env={"NO_COLOR": "1"})
    assert done.exit_code == 0, (done.output, done.exception)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [each for each in RUN.values() if each.words[1] == "check"], ids=str
)
def test_a_check_holds_on_all_its_examples(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, list(command.words[1:]), env={"NO_COLOR": "1"})
    assert done.exit_code == 0, (done.output, done.exception)


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {each.words[1] for each in commands("make")}
    assert named and not named - targets


def test_tests_that_a_page_names_exist() -> None:
    named: Callable[[str], list[str]] = re.compile(r"`(tests/\w[\w/]*(?:\.py)?)`").findall
    missing = {
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for name in named(page.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    }
    assert not missing
