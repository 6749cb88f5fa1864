"""The tools of the suite: enumeration, table models, guards, command line and pytest plugin."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from specdec.cli.app import app
from specdec.errors import PluginError
from specdec.law import Law
from specdec.randomness import Key, KeyedRandomness, Stream
from specdec.target import HFTarget
from specdec.testing import suite
from specdec.testing.enumeration import EnumeratedRandomness, EnumerationError, outcomes
from specdec.testing.guards import UnkeyedRandomnessError, only_keyed_randomness
from specdec.testing.tables import Table, TableForCausalLM, register
from specdec.treecheck import check_lm_head, check_tree_verification

pytestmark = pytest.mark.slow

TABLE = Table(3, 2, ((1, 2, 3), (5, 1, 1), (0, 1, 1), (1, 0, 0)))


def key(rows: int, draw: int = 0) -> Key:
    return Key(Stream.ACCEPT, torch.full((rows,), 4), 2, draw)


def test_outcomes_are_all_there_with_their_probabilities() -> None:
    p = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)

    def run(randomness: EnumeratedRandomness, rows: int) -> list[tuple[int, bool]]:
        tokens = randomness.categorical(Law.of(p.log().expand(rows, -1)), key(rows))
        heads = randomness.bernoulli(torch.where(tokens == 0, 0.25, 1.0).double(), key(rows, 1))
        return list(zip(tokens.tolist(), heads.tolist(), strict=True))

    found, weights = outcomes(run)
    law = dict(zip(found, weights.tolist(), strict=True))
    assert law == {(0, False): 0.375, (0, True): 0.125, (2, True): 0.5}


def test_a_key_used_twice_is_named() -> None:
    def run(randomness: EnumeratedRandomness, rows: int) -> None:
        for _ in range(2):
            randomness.bernoulli(torch.full((rows,), 0.5), key(rows, 7))

    with pytest.raises(PluginError, match="ACCEPT, position 4, node 2, draw 7"):
        outcomes(run)


def test_too_many_outcomes_are_refused() -> None:
    def run(randomness: EnumeratedRandomness, rows: int) -> None:
        for draw in range(10):
            randomness.bernoulli(torch.full((rows,), 0.5), key(rows, draw))

    with pytest.raises(EnumerationError, match="more than 64 outcomes after 6 draws"):
        outcomes(run, limit=64)


@pytest.mark.parametrize("window", [None, 3])
def test_table_models_pass_the_checks_at_load(window: int | None, tmp_path: Path) -> None:
    model = TableForCausalLM.of(TABLE, window)
    check_lm_head(HFTarget(model))
    assert check_tree_verification(HFTarget(model)) == 0
    register()
    model.save_pretrained(tmp_path)
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    tokens = torch.tensor([[2, 0, 1, 1]])
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
    assert torch.equal(model(tokens).logits[0, -1:], TABLE.after(tokens))


def test_a_table_model_shows_a_damaged_context() -> None:
    model = TableForCausalLM.of(TABLE)
    tokens = torch.tensor([[2, 0, 1, 1]])
    mask = torch.ones(4, 4, dtype=torch.bool).tril()[None, None]
    assert torch.equal(model(tokens, attention_mask=mask).logits, model(tokens).logits)
    holed = mask.clone()
    holed[..., 3, 1] = False
    last = model(tokens, attention_mask=holed).logits[0, -1]
    assert last.exp().tolist() == [1.0, 0.0, 0.0], "a point mass at position 3 modulo V"


def test_unkeyed_randomness_is_caught() -> None:
    with pytest.raises(UnkeyedRandomnessError, match="rand"), only_keyed_randomness():
        torch.rand(1)
    with pytest.raises(UnkeyedRandomnessError, match="Python's random"), only_keyed_randomness():
        random.random()
    keyed = KeyedRandomness(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(UnkeyedRandomnessError, match="of its own"), only_keyed_randomness():
        keyed.bernoulli(torch.ones(2), key(2))
    with only_keyed_randomness(production=True):
        keyed.bernoulli(torch.ones(2), key(2))
        q = torch.ones(1, 1, 2, 4)
        torch.nn.functional.scaled_dot_product_attention(q, q, q)


def test_importing_the_plugin_pulls_in_no_torch() -> None:
    code = (
        "import sys, specdec.testing, specdec.testing.pytest_plugin\n"
        "assert not {'torch', 'transformers', 'hypothesis'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_pytest_plugin_works_in_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "specdec.testing.pytest_plugin"]
    command += ["--specdec-strategy", "plain", "-k", "stop_rules or noise"]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_check_exits_with_1_on_failure_and_2_on_a_users_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = CliRunner()
    unknown = runner.invoke(app, ["check", "eagle3"])
    assert unknown.exit_code == 2 and "eagle2" in unknown.output
    assert runner.invoke(app, ["check", "plain", "--quick"]).exit_code == 0
    bad = suite.Verdict("exact_law", "the law is off [1]", 3, 0, 0.5, 0.1)
    monkeypatch.setattr(suite, "check", lambda *given, **more: bad)
    failed = runner.invoke(app, ["check", "plain", "--quick"])
    assert failed.exit_code == 1
    assert "FAILS" in failed.output and "the law is off [1]" in failed.output
