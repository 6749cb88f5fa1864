"""The tools of the suite: enumeration, table models, guards, command line and pytest plugin."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from specdec.cli.app import app
from specdec.decoding.randomness import Key, KeyedRandomness, Stream
from specdec.distribution import Distribution
from specdec.errors import PluginError
from specdec.models.checks.tree_attention import TreeCheck, check_lm_head
from specdec.models.hf_target import HFTarget
from specdec.testing import Subject, suite
from specdec.testing.case_strategies import cases
from specdec.testing.cases import Case
from specdec.testing.enumeration import (
    EnumeratedRandomness,
    EnumerationError,
    outcomes,
    outcomes_apart,
)
from specdec.testing.properties.common import results
from specdec.testing.references import Children, Node
from specdec.testing.stray_randomness import UnkeyedRandomnessError, only_keyed_randomness
from specdec.testing.table_model import TableForCausalLM, register
from specdec.testing.tables import Table
from specdec.testing.tiny_models import VOCAB
from specdec.testing.toy_tokenizer import toy_text, toy_tokenizer
from specdec_plugins.eagle.testing import eagle_head
from specdec_plugins.eagle2.policy import Eagle2Options
from specdec_plugins.eagle2.testing import eagle2
from specdec_plugins.static_tree.testing import chain, kary_tree, static_tree

TABLE = Table(3, 2, ((1, 2, 3), (5, 1, 1), (0, 1, 1), (1, 0, 0)))


def key(rows: int, draw: int = 0) -> Key:
    return Key(Stream.ACCEPT, torch.full((rows,), 4), 2, draw)


def test_outcomes_are_all_there_with_their_probabilities() -> None:
    p = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)

    def run(randomness: EnumeratedRandomness, rows: int) -> list[tuple[int, bool]]:
        tokens = randomness.categorical(Distribution.of(p.log().expand(rows, -1)), key(rows))
        heads = randomness.bernoulli(torch.where(tokens == 0, 0.25, 1.0).double(), key(rows, 1))
        return list(zip(tokens.tolist(), heads.tolist(), strict=True))

    found, weights = outcomes(run)
    distribution = dict(zip(found, weights.tolist(), strict=True))
    assert distribution == {(0, False): 0.375, (0, True): 0.125, (2, True): 0.5}


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

    with pytest.raises(EnumerationError, match="more than 64 outcomes"):
        outcomes(run, limit=64)
    with pytest.raises(EnumerationError, match="more than 64 outcomes"):
        outcomes_apart(lambda randomness: run(randomness, 1), limit=64)


def test_a_draw_whose_distribution_changes_on_replay_is_no_keyed_randomness() -> None:
    own = random.Random(3)

    def run(randomness: EnumeratedRandomness, rows: int) -> None:
        randomness.bernoulli(torch.full((rows,), own.uniform(0.2, 0.8)), key(rows))

    with pytest.raises(UnkeyedRandomnessError, match="draw 1 has another distribution"):
        outcomes(run)


def test_a_draw_that_is_not_made_again_on_replay_is_no_keyed_randomness() -> None:
    once = [0.5]

    def run(randomness: EnumeratedRandomness, rows: int) -> None:
        for p in (once.pop(),) if once else ():
            randomness.bernoulli(torch.full((rows,), p), key(rows))

    with pytest.raises(UnkeyedRandomnessError, match="unkeyed randomness"):
        outcomes(run)


def test_finished_rows_and_neighbours_branch_nothing() -> None:
    def run(randomness: EnumeratedRandomness, branches: int) -> list[int]:
        rows = branches + 2
        randomness.before = 1
        randomness.active = torch.tensor([True] * rows)
        heads = randomness.bernoulli(torch.full((rows,), 0.5), key(rows))
        randomness.active = heads
        again = randomness.bernoulli(torch.full((rows,), 0.5), key(rows, 1))
        assert not heads[[0, -1]].any()
        return (heads.int() + again.int())[randomness.branches].tolist()

    found, weights = outcomes(run)
    distribution = dict(zip(found, weights.tolist(), strict=True))
    assert distribution == {0: 0.5, 1: 0.25, 2: 0.25}


@pytest.mark.parametrize("window", [None, 3])
def test_table_models_pass_the_checks_at_load(window: int | None, tmp_path: Path) -> None:
    model = TableForCausalLM.of(TABLE, window)
    check_lm_head(HFTarget(model))
    assert TreeCheck.at_load(HFTarget(model)).margin == 0
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


def children_of(*distributions: float) -> Children:
    """Every node has children of these log q, the likeliest first."""

    def children(node: Node) -> list[Node]:
        below = [Node((*node.path, token), node.value + q) for token, q in enumerate(distributions)]
        return sorted(below, key=lambda child: -child.value)

    return children


def test_references_agree_where_policies_draw_the_same_tree() -> None:
    children = children_of(-3.0, -1.0, -2.0)
    every = ((0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1))
    by_rank = static_tree(SimpleNamespace(choices=every), 2, children)
    by_arity = kary_tree(SimpleNamespace(k=2, depth=2), 5, children)
    by_value = eagle2(Eagle2Options(depth=2, top_k=2, budget=99), 2, children)
    assert set(by_rank) == set(by_arity) == set(by_value)
    line = chain(SimpleNamespace(depth=3), 2, children)
    assert line == kary_tree(SimpleNamespace(k=1, depth=2), 3, children)
    assert [node.path for node in line] == [(1,), (1, 1)]


def test_the_reference_of_eagle2_goes_deeper_where_values_are_higher() -> None:
    tree = eagle2(Eagle2Options(depth=3, top_k=2, budget=3), 3, children_of(-0.1, -0.15, -5.0))
    assert [node.path for node in tree] == [(0,), (1,), (0, 0)]
    tree = eagle2(Eagle2Options(depth=3, top_k=2, budget=3), 3, children_of(-0.1, -1.0))
    assert [node.path for node in tree] == [(0,), (0, 0), (0, 0, 0)]


def test_the_reference_of_eagle2_without_its_ideas() -> None:
    """The sure child of an unsure node: confidence alone expands it, the value does not."""

    def children(node: Node) -> list[Node]:
        steps = {(): (-0.1, -3.0), (0,): (-1.0, -1.2), (1,): (-0.01, -5.0)}
        below = [Node((*node.path, t), node.value + q) for t, q in enumerate(steps[node.path])]
        return sorted(below, key=lambda child: -child.value)

    def paths(**options: Any) -> list[tuple[int, ...]]:
        tree = eagle2(Eagle2Options(depth=2, top_k=2, budget=4, **options), 2, children)
        return [node.path for node in tree]

    assert paths() == [(0,), (0, 0), (0, 1), (1,)]
    assert paths(rerank=False) == [(0,), (1,), (0, 0), (0, 1)]
    assert paths(rerank=False, score="confidence") == [(0,), (1,), (1, 0), (0, 0)]


def test_letters_are_what_the_toy_tokenizer_writes() -> None:
    tokenizer = toy_tokenizer(5)
    tokens = [4, 0, 0, 3]
    assert tokenizer.decode(tokens, skip_special_tokens=True) == toy_text(tokens) == "eaad"
    assert tokenizer("eaad").input_ids == tokens


def test_every_property_of_drafts_concerns_the_strategies_that_have_them() -> None:
    def names(**subject: object) -> set[str]:
        made = Subject(**subject)  # type: ignore[arg-type]
        return {prop.name for prop in suite.PROPERTIES if prop.excuse(made) is None}

    grown = {"tree_is_the_reference", "values_are_products", "drafter_is_as_if_fresh"}
    assert grown <= names(strategy="eagle2") and not grown & names(strategy="plain")
    assert "drafter_is_as_if_fresh" not in names(strategy="eagle2", adaptive=True)
    assert not grown & names(strategy="auto"), "it learns"
    nothing_learned = {"policy": {"calibrated": False, "size_by_cost": False}}
    assert grown <= names(strategy="auto", options=nothing_learned)
    sampled = names(strategy="draft_model")
    assert "draft_distribution_is_the_table" in sampled and "tree_is_the_reference" not in sampled
    assert "same_as_plain_on_real_models" in sampled & names(strategy="chain", drafter="table")


def test_a_provider_is_given_every_target_that_its_drafter_must_fit() -> None:
    sizes = set()

    def provider(model: Any, folder: Path) -> str:
        sizes.add(model.config.vocab_size)
        return eagle_head(model, folder)

    subject = Subject("chain", drafter=provider)
    real = next(p for p in suite.PROPERTIES if p.name == "same_as_plain_on_real_models")
    assert real.excuse(subject) is None
    assert suite.check(subject, real, examples=4).failure is None
    assert sizes == {2, 3, VOCAB}, "one of them shows how deep trees are"


def test_cases_end_in_every_way() -> None:
    reasons = set()

    def collect(subject: Subject, case: Case) -> float:
        reasons.update(result.finish_reason for result in results(subject.of(case), case, 0))
        return 0.0

    suite.check(Subject("plain"), suite.Property(collect, cases()), examples=80)
    assert reasons == {"eos", "stop", "length"}


def test_a_strategy_that_measures_itself_measures_the_same_in_every_run() -> None:
    found: list[float] = []

    def look(subject: Subject, case: Case) -> float:
        found.extend(time.perf_counter() for _ in range(3))
        return 0.0

    prop = suite.Property(look, cases())
    assert suite.check(Subject("auto"), prop, examples=2).failure is None
    assert found[:3] == found[3:] == sorted(found[:3])
    found.clear()
    assert suite.check(Subject("eagle2"), prop, examples=2).failure is None
    assert found[:3] != found[3:]


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


# What ``pytest`` is called with outside this repository, and what its output says once.
RUNS: dict[str, tuple[list[str], str]] = {
    "a strategy": (
        ["--specdec-strategy", "plain", "-k", "stop_rules or noise", "--specdec-examples", "5"],
        "2 passed",
    ),
    "an unknown drafter": (
        ["--specdec-strategy", "eagle2", "--specdec-drafter", "eagle9"],
        "unknown drafter",
    ),
    "a drafter alone": (
        ["--specdec-drafter", "table"],
        "--specdec-drafter needs --specdec-strategy",
    ),
    "a contract of nothing": (["test_nothing.py"], "TestNothing names no strategy"),
}
PYTEST = """
import contextlib, io, json, sys, pytest
told = {}
for name, arguments in json.loads(sys.argv[1]).items():
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        status = int(pytest.main(["-q", "-p", "specdec.testing.pytest_plugin", *arguments]))
    told[name] = status, out.getvalue()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit status and output of every run, by name; one process runs them all."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "test_nothing.py").write_text(
        "from specdec.testing import StrategyContract\nclass TestNothing(StrategyContract): ..."
    )
    runs = json.dumps({name: arguments for name, (arguments, _) in RUNS.items()})
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", PYTEST, runs]
    ran = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_pytest_plugin_works_in_any_folder(outside: dict[str, tuple[int, str]]) -> None:
    status, told = outside["a strategy"]
    assert status == 0 and RUNS["a strategy"][1] in told, told


@pytest.mark.parametrize("name", [name for name in RUNS if name != "a strategy"])
def test_a_contract_that_cannot_be_made_is_one_error(
    outside: dict[str, tuple[int, str]], name: str
) -> None:
    status, told = outside[name]
    assert status != 0 and told.count(RUNS[name][1]) == 1, told
    assert "Traceback" not in told and "failed" not in told, told


def test_a_subject_leaves_nothing_behind() -> None:
    subject = Subject("chain")
    folder = Path(subject._folder)
    assert list(folder.iterdir())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del subject
        gc.collect()
    assert not folder.exists()
    assert not [w for w in warned if w.category is ResourceWarning]


@pytest.mark.parametrize(("every", "enough"), [(2, True), (3, False)])
def test_too_few_enumerated_cases_are_a_failure(every: int, enough: bool) -> None:
    order: dict[str, int] = {}

    def large(subject: Subject, case: Case) -> float:
        """Too large, however few distributions are open, but for each ``every``-th case."""
        which = order.setdefault(f"{case.prompts} {case.settings} {case.seed}", len(order) + 1)
        if which % every:
            raise EnumerationError
        return 0.0

    prop = suite.Property(large, cases())
    verdict = suite.check(Subject("plain"), prop, examples=12)
    assert verdict.examples + verdict.too_large == 12
    assert (verdict.failure is None) == enough
    assert enough or "of 12 cases had too many outcomes" in str(verdict.failure)


def test_a_lossy_strategy_is_measured_and_not_said_to_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suite, "QUICK", 2)
    command = ["check", "eagle2", "--drafter", "table", "--acceptor", "typical", "--quick"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0
    assert "every property holds" not in told.output
    assert "lossy: measured up to" in told.output
    verdicts = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["properties"]
    assert [v["name"] for v in verdicts if v["measured"]] == ["measured_total_variation"]


def test_check_exits_with_1_on_failure_and_2_on_a_users_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = CliRunner()
    unknown = runner.invoke(app, ["check", "eagel2"])
    assert unknown.exit_code == 2 and "eagle2" in unknown.output
    monkeypatch.setattr(suite, "QUICK", 2)
    assert runner.invoke(app, ["check", "plain", "--quick"]).exit_code == 0
    bad = suite.Verdict("exact_distribution", "the distribution is off [1]", 3, 0, 1.72, 0.1, "sd")
    monkeypatch.setattr(suite, "check", lambda *given, **more: bad)
    failed = runner.invoke(app, ["check", "plain", "--quick"])
    assert failed.exit_code == 1
    assert "FAILS" in failed.output and "the distribution is off [1]" in failed.output
    assert "1.7 sd" not in failed.output, "cases that hold say nothing of the one that does not"
    told = json.loads(runner.invoke(app, ["check", "plain", "--json"]).stdout)
    assert not told["passed"]
    first = told["properties"][0]
    assert (first["largest"], first["unit"], first["figure"]) == (1.72, "sd", None)


def test_a_property_that_fails_now_and_then_is_a_failure_and_no_crash() -> None:
    calls = 0

    def now_and_then(subject: Subject, case: Case) -> float:
        """Fails once."""
        nonlocal calls
        calls += 1
        if calls == 3:
            raise AssertionError("the third call")
        return 0.0

    verdict = suite.check(Subject("plain"), suite.Property(now_and_then, cases()), examples=20)
    assert verdict.failure is not None
    assert "at one time and not at another: the third call" in verdict.failure
    assert verdict.examples == 2, "what came after the failure is no evidence"
