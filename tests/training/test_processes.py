"""Several processes train one network: ``pytest -m slow tests/training/test_processes.py``.

They are two processes on the CPU, with gloo, as ``torchrun --nproc_per_node 2`` starts them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import training_process
from training_process import SHORT, train_and_keep

pytestmark = pytest.mark.slow

RECIPES: dict[str, dict[str, Any]] = {
    "eagle3": {"options": {"recipe": "eagle3"}},
    "unrolled": {"options": {"recipe": "unrolled", "draft_vocab_size": 40}},
    "medusa": {"trainer": "medusa"},
    "draft-model": {"trainer": "draft-model", "options": {"hidden_size": 32, "heads": 4}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_end_with_one_network_that_of_accumulated_gradients(
    target: Any, tokenizer: Any, data: Path, tmp_path: Path, name: str
) -> None:
    target.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    adamw = {"optimizer": "adamw", "learning_rate": 0.01}  # Muon computes in bfloat16
    common = {**SHORT, **adamw, **RECIPES[name], "model": str(tmp_path / "model")}
    common |= {"data": str(data), "device": "cpu"}
    common |= {"tau_every": 3, "tau_prompts": 2, "tau_tokens": 8}  # one process measures it

    def found(kind: str, process: int) -> Any:
        return torch.load(tmp_path / kind / f"{process}.pt", weights_only=True)

    for kind, more in (("one", {"accumulate": 2}), ("half", {})):
        (tmp_path / kind).mkdir()
        train_and_keep(tmp_path / kind, {**common, **more, "out": str(tmp_path / kind / "out")})
    (tmp_path / "two").mkdir()
    given = {**common, "out": str(tmp_path / "two" / "out")}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [training_process.__file__, str(tmp_path / "two"), json.dumps(given)]
    done = subprocess.run(
        [sys.executable, *launcher, *script], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, second, one = found("two", 0), found("two", 1), found("one", 0)
    assert first["weights"].keys() == second["weights"].keys()
    for key, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][key]), key
    apart = abs(first["loss"] - one["loss"])
    assert apart <= 1e-3 * one["loss"]
    assert apart < 0.1 * abs(first["loss"] - found("half", 0)["loss"]), "of half the batches"
    summary = json.loads((tmp_path / "two" / "out" / "training.json").read_text())
    assert summary["steps"] == SHORT["steps"] and summary["tau"] >= 1
