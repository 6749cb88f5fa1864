"""scripts/compare_official.py: heads saved by specdec in the official EAGLE code.

The comparison itself needs a checkout of github.com/SafeAILab/EAGLE::

    SPECDEC_OFFICIAL_EAGLE=CHECKOUT pytest -m slow tests/test_official_eagle.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_official

    return compare_official


@pytest.fixture
def checkout() -> str:
    given = os.environ.get("SPECDEC_OFFICIAL_EAGLE")
    if not given:
        pytest.skip("no checkout given: SPECDEC_OFFICIAL_EAGLE=DIR")
    return given


def compare(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run the command, in a process of its own: the official code stays imported."""
    command = [sys.executable, str(SCRIPTS / "compare_official.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_heads_of_both_families_draft_the_same_in_the_official_code(checkout: str) -> None:
    done = compare(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same") == 6 * 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 3], ids=["EAGLE-1/2", "EAGLE-3"])
def test_a_head_that_differs_by_a_percent_in_one_tensor_is_found(
    checkout: str, script: Any, tmp_path: Path, number: int
) -> None:
    """The official code takes pytorch_model.bin first, specdec model.safetensors."""
    target = script.make_target(0)
    target.save_pretrained(tmp_path / "target")
    _, head = list(script.make_heads(target, tmp_path, 0))[number]
    arguments = [checkout, "--target", tmp_path / "target", "--head", head, "--tree", 3, 4, 10]
    assert compare(*arguments).returncode == 0
    weights = load_file(head / "model.safetensors")
    torch.save(weights, head / "pytorch_model.bin")
    save_file({**weights, "fc.weight": weights["fc.weight"] * 1.01}, head / "model.safetensors")
    done = compare(*arguments)
    assert done.returncode == 1 and "step 0, node 1" in done.stdout


def test_every_change_of_a_step_is_a_difference_and_rounding_is_none(script: Any) -> None:
    step = script.DraftedStep([5, 9, 1, 7], [-1, 0, 0, 1], [0.0, -0.5, -2.0, -8.0], [9, 3])
    steps = [step, step]
    for field in ("tokens", "parents", "committed"):
        for index in range(len(getattr(step, field))):
            changed = [*getattr(step, field)]
            changed[index] += 1
            other = [step, replace(step, **{field: changed})]
            assert "step 1" in script.first_difference(steps, other)
    for amount, same in ((1e-6, True), (1e-2, False)):
        other = [replace(step, scores=[score - amount for score in step.scores]), step]
        assert (script.first_difference(steps, other) is None) == same
    shorter = replace(step, tokens=[5, 9], parents=[-1, 0], scores=[0.0, -0.5])
    assert "node 2" in script.first_difference(steps, [shorter, step])
    assert "2 steps, specdec's 1" in script.first_difference(steps, [step])
    assert script.first_difference(steps, steps) is None


def test_a_folder_that_is_no_checkout_is_told(script: Any, tmp_path: Path, capsys: Any) -> None:
    assert script.main([str(tmp_path)]) == 2
    assert "no eagle/model/ea_model.py" in capsys.readouterr().err
