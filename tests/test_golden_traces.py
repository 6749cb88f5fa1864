"""EAGLE-2 and EAGLE-3 step by step against reference traces: trees, acceptance and output.

The traces are written by ``scripts/make_golden.py``, an independent derivation without cache, tree
mask or batched builder. To compare with traces from elsewhere ("Reference traces" of
docs/heads.md), give a folder with ``target/``, ``head/`` (an EAGLE-1, EAGLE-2 or EAGLE-3
checkpoint) and ``golden.json``::

    pytest tests/test_golden_traces.py --golden DIR
    SPECDEC_GOLDEN=DIR pytest tests/test_golden_traces.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from specdec import Engine

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_golden.py"


def make_golden(*arguments: Any) -> None:
    """Run the script in this process."""
    spec = importlib.util.spec_from_file_location("make_golden", SCRIPT)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    make_golden(folder)
    return folder


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "golden.json").read_text())


def compare(folder: Path, run: dict[str, Any], prompt: list[int], dtype: str) -> int:
    """Check one run against its trace; how many draft tokens were accepted on the way."""
    levels = run["depth"] + 1
    engine = Engine(
        folder / "target",
        strategy="eagle2",
        drafter=folder / "head",
        dtype=dtype,
        options={
            "policy": {
                "depth": levels,
                "top_k": run["top_k"],
                "budget": run["total_tokens"] - 1,
            }
        },
    )
    # The reference samples one token before its first tree; specdec's first root is that token.
    start = [*prompt, run["steps"][0]["root_token"]]
    wanted = run["output_ids"][1:]
    # A few tokens more than were traced, so that no traced tree is cut short by the limit.
    generation = engine.session().start(
        start, max_new_tokens=len(wanted) + 3 * (levels + 1), temperature=0, eos_token_id=[]
    )
    accepted_in_all = compared = 0
    for step, reference in zip(generation, run["steps"], strict=False):
        tree = step.tree
        assert tree.tokens[0].tolist() == reference["draft_tokens"]
        assert tree.parents[0].clamp(min=0).tolist() == reference["parents"]
        assert tree.depths[0].tolist() == reference["depths"]
        scores = torch.tensor(reference["scores"], dtype=tree.log_value.dtype)
        torch.testing.assert_close(tree.log_value[0].cpu(), scores, atol=1e-4, rtol=0)
        length = int(step.acceptance.length[0])
        path = [n for n in reference["accepted_nodes"] if n != 0]
        assert step.acceptance.path[0, :length].tolist() == path
        assert int(step.acceptance.bonus[0]) == reference["bonus_token"]
        accepted_in_all += length
        compared += 1
    assert compared == len(run["steps"])
    assert generation.new_tokens(0)[: len(wanted)] == wanted
    result = engine.generate(start, max_new_tokens=len(wanted), temperature=0, eos_token_id=[])
    assert result.token_ids == wanted
    return accepted_in_all


def compare_all(folder: Path) -> list[int]:
    """Check all runs of a folder from elsewhere; how many draft tokens each accepted."""
    golden = read(folder)
    prompts = [each["prompt"] if isinstance(each, dict) else each for each in golden["prompts"]]
    dtype = golden.get("dtype", "float32")
    return [compare(folder, run, prompts[run["prompt_index"]], dtype) for run in golden["runs"]]


@pytest.mark.parametrize("index", [0, 1])
def test_every_step_equals_an_independent_derivation(own: Path, index: int) -> None:
    golden = read(own)
    run = golden["runs"][index]
    accepted = compare(own, run, golden["prompts"][0]["prompt"], golden["dtype"])
    assert accepted >= 3, "a trace without accepted drafts would test half of the algorithm"


def test_traces_of_a_head_with_two_layers_and_its_own_embedding(model: Any, tmp_path: Path) -> None:
    target = tiny.save_model(model, tmp_path / "target")
    head = tiny.make_head(
        tmp_path / "head", model, num_hidden_layers=2, fc_bias=False, own_embedding=True,
        attention_bias=True,
    )  # fmt: skip
    make_golden(
        tmp_path, "--target", target, "--head", head, "--setting", 2, 3, 9, "--new-tokens", 10
    )
    golden = read(tmp_path)
    compare(tmp_path, golden["runs"][0], golden["prompts"][0]["prompt"], "float64")


@pytest.mark.parametrize("draft_size", [40, 60], ids=["with d2t", "without d2t"])
def test_every_step_of_an_eagle3_head_equals_an_independent_derivation(
    tmp_path: Path, draft_size: int
) -> None:
    make_golden(tmp_path, "--eagle3", draft_size)
    golden = read(tmp_path)
    for run in golden["runs"]:
        accepted = compare(tmp_path, run, golden["prompts"][0]["prompt"], golden["dtype"])
        assert accepted >= 3, "a trace without accepted drafts would test half of the algorithm"


def test_traces_in_which_nothing_was_accepted_are_compared_as_any_others(
    model: Any, tmp_path: Path
) -> None:
    target = tiny.save_model(model, tmp_path / "target")
    head = tiny.make_head(tmp_path / "head", model)
    weights = load_file(head / "model.safetensors")
    save_file({k: -v for k, v in weights.items()}, head / "model.safetensors")
    settings = ["--setting", 1, 1, 2, "--setting", 2, 2, 4, "--new-tokens", 6]
    make_golden(tmp_path, "--target", target, "--head", head, *settings)
    assert compare_all(tmp_path) == [0, 0]


def test_every_step_equals_the_external_traces(request: pytest.FixtureRequest) -> None:
    given = request.config.getoption("--golden") or os.environ.get("SPECDEC_GOLDEN")
    if not given:
        pytest.skip("no folder given: pytest --golden DIR")
    assert compare_all(Path(given)), "golden.json has no runs"
