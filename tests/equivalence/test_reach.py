"""How far the suite goes, what it makes of a failure, and that table models go as far."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from broken import Broken, Rejection
from lenient import from_level

from specdec.testing import Subject, Table, suite
from specdec.testing.case_strategies import WIDEST, cases
from specdec.testing.cases import Case
from specdec.testing.enumerated_distributions import Autoregressive, Enumerated
from specdec.testing.enumeration import EnumeratedRandomness, outcomes, outcomes_apart
from specdec.testing.reach import Reach
from specdec.testing.smallest_case import Failure, simplest
from specdec.testing.table_drafter import TableDrafter
from specdec.testing.table_model import TableForCausalLM
from specdec.testing.toy_tokenizer import toy_text, toy_tokenizer

WEIGHTS = ((1.0, 2.0), (3.0, 1.0), (0.0, 1.0))
BY_NAME = {prop.name: prop for prop in suite.PROPERTIES}


@pytest.mark.parametrize("vocabulary", [None, 300, WIDEST])
@pytest.mark.parametrize("opened", [None, (2, 4)])
def test_a_table_model_has_its_tables_distributions(
    vocabulary: int | None, opened: tuple[int, ...] | None
) -> None:
    table = Table(2, 2, WEIGHTS, vocabulary, opened, quiet=(1, 0, 0))
    low, high = table.tokens
    assert high == table.vocab_size - 1
    tokens = torch.tensor([[high, low, low, high, high, low]])
    logits = TableForCausalLM.of(table)(tokens).logits[0]
    for position in range(tokens.shape[1]):
        distribution = table.after(tokens[:, : position + 1])[0]
        assert torch.equal(logits[position], distribution)
        likely = distribution.exp().nonzero().flatten().tolist()
        if opened is not None and position not in opened:
            assert likely == [table.tokens[(1, 0, 0)[position % 3]]]
        assert set(likely) <= {low, high}


def test_the_drafter_table_drafts_its_tables_distributions() -> None:
    table = Table(2, 2, WEIGHTS, 60, open=(2,), quiet=(1,))
    subject = Subject("chain", drafter="table")
    case = Case(table, table, ((29, 59),), {"temperature": 0.0, "max_new_tokens": 6})
    engine = subject.of(case)
    assert isinstance(engine.parts.drafter, TableDrafter)
    step = next(iter(engine.session().start(case.rows, seed=0, **case.settings)))
    assert step.tree.depth == 4 and step.accepted == [4], "q is p"


def test_letters_are_different_for_every_token() -> None:
    tokens = [0, 61, 62, 255, 256, WIDEST - 1]
    assert len(set(toy_text(tokens))) == len(tokens)
    assert toy_tokenizer(WIDEST).decode(tokens) == toy_text(tokens)


@pytest.mark.parametrize(
    ("strategy", "more", "levels", "sampled"),
    [
        ("plain", {}, 0, False),
        ("chain", {}, 4, False),
        ("eagle2", {}, 6, False),
        ("lookup", {}, 10, False),
        ("draft_model", {}, 4, True),
        ("draft_model", {"options": {"policy": {"depth": 7, "width": 2}}}, 7, True),
        ("auto", {}, 16, False),
    ],
)
def test_a_subject_is_examined_as_it_is_configured(
    strategy: str, more: dict[str, Any], levels: int, sampled: bool
) -> None:
    subject = Subject(strategy, **more)
    assert (subject.levels, subject.sampled) == (levels, sampled)
    said = subject.describe()
    assert said.startswith(f"{strategy}: ") and "\n" not in said
    assert ("instead" in said) == (subject.grows and not more), "what is changed is said"


def test_distributions_are_enumerated_down_to_the_deepest_level() -> None:
    subject = Subject("draft_model")
    assert suite.check(subject, BY_NAME["exact_distribution"], examples=8).failure is None
    assert suite.check(subject, BY_NAME["whole_sequences"], examples=12).failure is None
    reach = subject.reach
    assert reach.levels == subject.levels == 4
    assert reach.rows >= 4 and reach.token > 255 and reach.position > 20 and reach.steps > 4
    assert "down to level 4 of 4" in reach.describe(4)
    assert "below level 4 the distribution is not known" in reach.describe(6)
    assert "level" not in Reach().describe(None)
    assert "no draft token was met" in Reach().describe(0)


def test_beginnings_are_compared_as_far_as_they_can_differ() -> None:
    table = Table(2, 0, ((1.0, 3.0),))
    chosen = {"temperature": 1.0, "max_new_tokens": 3, "eos_token_id": []}
    case = Case(table, table, ((0,),), chosen)
    target = Autoregressive(case, Subject("plain").of(case))
    right = Enumerated({(0,): 0.25, (1, 0): 0.1875, (1, 1): 0.5625}, frozenset(), 1, 1)
    ours, own = target.against(right)
    assert ours == pytest.approx(own)
    assert own == pytest.approx({(0,): 0.25, (1, 0): 0.1875, (1, 1): 0.5625})
    early = Enumerated({(0,): 0.25, (1,): 0.75}, frozenset({(1,)}), 1, 1)
    ours, own = target.against(early)
    assert ours[1, 1] == 0.0 and own[1, 1] == pytest.approx(0.5625), "it ended too early"


def test_outcomes_apart_are_those_of_a_batch() -> None:
    subject = Subject("draft_model", drafter="table", options={"policy": {"depth": 2}})
    table = Table(3, 1, ((1.0, 2.0, 1.0), (2.0, 1.0, 0.0)))
    chosen = {"temperature": 1.0, "max_new_tokens": 3, "eos_token_id": []}
    case = Case(table, replace(table, order=0), ((0, 1),), chosen)
    engine = subject.of(case)

    def run(randomness: EnumeratedRandomness, branches: int) -> list[tuple[int, ...]]:
        other = subject.of(case, randomness)
        assert other is not engine
        step = next(iter(other.session().start([[0, 1]] * branches, seed=0, **chosen)))
        return list(map(tuple, step.new_tokens))

    def distribution(
        texts: list[tuple[int, ...]], weights: torch.Tensor
    ) -> dict[tuple[int, ...], float]:
        found: dict[tuple[int, ...], float] = {}
        for text, weight in zip(texts, weights.tolist(), strict=True):
            found[text] = found.get(text, 0.0) + weight
        return found

    together, weights = outcomes(run)
    alone, others = outcomes_apart(lambda randomness: run(randomness, 1)[0])
    assert distribution(together, weights) == pytest.approx(distribution(alone, others))
    assert float(weights.sum()) == pytest.approx(1.0)


def test_a_failure_is_made_small() -> None:
    """What does not matter is gone: settings, neighbours, the draft, seeds and noise."""

    def wants_three(subject: Subject, case: Case) -> float:
        """Texts have fewer than three new tokens after a prompt of two or more."""
        assert case.settings["max_new_tokens"] < 3 or len(case.prompts[0]) < 2, "too long"
        return 0.0

    wide = cases(noise=True, vocabularies=(300,), opened=2, min_new=3)
    verdict = suite.check(Subject("plain"), suite.Property(wants_three, wide), examples=20)
    assert verdict.failure is not None
    shown = verdict.failure.partition("counter-example:\n")[2]
    lines = dict(line.split(None, 1) for line in shown.splitlines())
    assert lines["target"] == lines["draft"] == "<V=2 order=0 weights 1:1>"
    assert lines["prompts"] in ("[0, 0]", "[1, 1]") and lines["seed"] == "0"
    rest = ", max_new_tokens=3, eos_token_id=[]"
    assert lines["settings"] in (f"temperature=1.0{rest}", f"temperature=0.0{rest}")
    assert lines["noise"] == "((10, 10),)"


def test_looking_for_a_smaller_case_has_an_end() -> None:
    table = Table(2, 0, ((1.0, 1.0),))
    chosen = {"temperature": 1.0, "max_new_tokens": 3, "eos_token_id": []}
    failure = Failure(Case(table, table, ((0,) * 300,), chosen), AssertionError, "wrong")

    def slow(case: Case) -> Failure:
        time.sleep(0.05)
        return Failure(case, AssertionError, "wrong")

    began = time.monotonic()
    found = simplest(failure, slow, patience=0.2)
    assert time.monotonic() - began < 1.0
    assert len(found.case.prompts[0]) < 300


def test_a_smaller_case_fails_in_the_same_way() -> None:
    table = Table(2, 0, ((1.0, 1.0),))
    chosen = {"temperature": 1.0, "max_new_tokens": 3, "eos_token_id": [], "top_k": 1}
    failure = Failure(Case(table, table, ((0, 1),), chosen), AssertionError, "wrong")

    def crash(case: Case) -> Failure:
        return Failure(case, RuntimeError, "crash")

    assert simplest(failure, crash, patience=1.0) is failure


def test_a_counter_example_shows_the_settings_that_were_run() -> None:
    """At temperature 0 for acceptors that keep no more than the distribution."""
    subject, seen = Subject("draft_model"), set()
    real = BY_NAME["same_as_plain_on_real_models"]

    def collect(subject: Subject, case: Case) -> float:
        seen.add(case.settings["temperature"])
        return 0.0

    suite.check(subject, replace(real, check=collect), examples=20)
    assert seen == {0.0}


def test_a_case_with_too_many_outcomes_is_narrowed_and_said_to_be() -> None:
    given = {"policy": {"depth": 4, "width": 6}}
    subject = Subject("draft_model", drafter="table", options=given)
    verdict = suite.check(subject, BY_NAME["exact_distribution"], examples=4)
    assert verdict.failure is None
    assert verdict.narrowed > 0
    assert subject.reach.levels == 4


def test_the_rest_of_a_property_is_left_out_after_a_failure() -> None:
    broken = Broken(Rejection, "", from_level(1))
    subject = Subject("draft_model", drafter="table", plugins=[broken], acceptor="broken")
    verdict = suite.check(subject, BY_NAME["exact_distribution"], shrink=False)
    assert verdict.failure is not None and verdict.seconds < 30
    assert verdict.figure is None
