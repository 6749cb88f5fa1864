"""The flags of models that are larger than one device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def commands(folder: Path, tmp_path: Path) -> dict[str, list[Any]]:
    """Every command that has --device, by what it is called."""
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out"
    rows.write_text('{"prompt": "HELLO"}\n', encoding="utf-8")
    model = ["-m", folder]
    return {
        "generate": ["generate", "HELLO", *model],
        "trace": ["trace", "HELLO", *model],
        "batch": ["batch", rows, out, *model],
        "bench": ["bench", *model],
        "bench paper": ["bench", "paper", "--out", out, *model],
        "train": ["train", "eagle", "--data", rows, "--out", out, *model],
    }


@pytest.mark.parametrize("name", ["generate", "trace", "batch", "bench", "bench paper", "train"])
def test_every_command_with_a_device_takes_a_device_map(
    run: Command, commands: dict[str, list[Any]], name: str
) -> None:
    """They are refused together, so both are read."""
    found = run(*commands[name], "--device", "cpu", "--device-map", "auto")
    assert found.exit_code == 2, found.output
    assert "device and device_map each say where the model goes" in found.stderr


def test_a_device_map_of_one_device_gives_the_text_of_that_device(generated: Command) -> None:
    pytest.importorskip("accelerate")
    settings = ["--temperature", 1, "--seed", 3]
    found, wanted = (
        generated(*settings, flag, "cpu")["token_ids"] for flag in ("--device-map", "--device")
    )
    assert found == wanted


def test_an_inflated_model_is_not_placed(run: Command, commands: dict[str, list[Any]]) -> None:
    found = run(*commands["bench"], "--inflate", "240m", "--device-map", "auto")
    assert found.exit_code == 2
    assert "--inflate 240m --device-map auto: an inflated model is made on one" in found.stderr


def test_tensor_parallel_without_torchrun_is_refused_with_the_command(
    run: Command, commands: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*map(str, commands["generate"]), "--tensor-parallel"]
    monkeypatch.setattr("sys.argv", ["specdec", *arguments])
    found = run(*arguments)
    assert found.exit_code == 2
    again = f"torchrun --nproc-per-node 2 -m specdec.cli -- {' '.join(arguments)}"
    assert again in " ".join(found.stderr.split())


def test_ranks_do_not_read_their_prompt_from_standard_input(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    found = run("generate", "-", "-m", folder, "--tensor-parallel", input="HELLO")
    assert found.exit_code == 2
    assert "give the prompt itself" in found.stderr
