"""``specdec generate --explain``: the decisions of the streamed run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from specdec import Engine
from specdec.cli.explain import steps_as_json

Command = Callable[..., Any]
COLUMNS = ("step", "drafted", "budget", "grown", "depth", "expected", "realised")
AUTO = ("--strategy", "auto", "-o", "policy.size_by_cost=false")


@pytest.mark.parametrize("strategy", [("--strategy", "eagle2"), AUTO], ids=["eagle2", "auto"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_json_has_every_step_and_adds_up(
    generated: Command, strategy: tuple[str, ...], temperature: int
) -> None:
    found = generated(*strategy, "--explain", "--temperature", temperature, "--seed", 3)
    steps = found["explain"]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert sum(step["realised"] for step in steps) == found["new_tokens"]
    assert len(steps) == found["stats"]["target_forwards"]
    for step in steps:
        assert step["depth"] <= step["levels"]
        assert step["drafted"] is (step["budget"] > 0)
        assert 1 <= step["expected"] <= 1 + step["budget"]
        assert 1 <= step["realised"] <= 1 + step["depth"]
    assert max(step["budget"] for step in steps) > 1


def test_table_follows_the_text_and_ends_in_means(generate: Command, generated: Command) -> None:
    arguments = ("--strategy", "eagle2", "--explain", "--temperature", 0)
    found = generated(*arguments)
    steps = found["explain"]
    result = generate(*arguments)
    assert result.stdout.startswith(found["text"] + "\n")
    lines = [line.split() for line in result.stdout.splitlines()]
    head = lines.index(list(COLUMNS))
    for step, line in zip(steps, lines[head + 2 :], strict=False):
        expected = f"{step['expected']:.2f}"
        shown = [step["step"], "yes" if step["drafted"] else "no", step["budget"], step["levels"]]
        assert line == [*map(str, shown), str(step["depth"]), expected, str(step["realised"])]
    count = len(steps)
    budget = sum(step["budget"] for step in steps) / count
    expected = f"{sum(step['expected'] for step in steps) / count:.2f}"
    realised = f"{found['new_tokens'] / count:.2f}"
    assert f"mean budget {budget:.1f}" in result.stdout
    assert f"mean expected {expected}, realised {realised} tokens a step" in result.stdout
    assert "identical to plain" in result.stdout


def test_steps_of_plain_decoding_say_that_nothing_was_drafted(generated: Command) -> None:
    steps = generated("--strategy", "plain", "--explain", drafter=False)["explain"]
    assert len(steps) == 12
    for step in steps:
        assert (step["drafted"], step["budget"], step["depth"]) == (False, 0, 0)
        assert (step["expected"], step["realised"]) == (1.0, 1)


def test_drafts_from_the_text_itself_are_told_from_the_drafters(
    generate: Command, generated: Command
) -> None:
    arguments = ("--strategy", "lookup", "-o", "drafter.min_probability=0")
    arguments += ("-o", "drafter.size_by_cost=false", "--explain", "--temperature", 0)
    repeats: dict[str, Any] = {"prompt": "HELLO HELLO HELLO HELLO", "drafter": False}
    steps = generated(*arguments, **repeats)["explain"]
    assert any(step["drafted"] for step in steps)
    assert all(step["from_text"] is step["drafted"] for step in steps)
    shown = generate(*arguments, **repeats).stdout
    assert f"({sum(step['from_text'] for step in steps)} from the text)" in shown
    drafted = generated("--strategy", "eagle2", "--explain")["explain"]
    assert not any(step["from_text"] for step in drafted)


def test_without_the_flag_nothing_is_explained(generate: Command, generated: Command) -> None:
    assert "explain" not in generated()
    assert "realised" not in generate().stdout


def test_compare_is_refused_with_the_way_out(generate: Command) -> None:
    result = generate("--explain", "--compare", "eagle2,chain")
    assert result.exit_code == 2
    assert "--strategy NAME --explain" in result.stderr


def test_the_steps_are_those_of_the_engines_trace(generated: Command, plain: Engine) -> None:
    found = generated("--strategy", "plain", "--explain", "--temperature", 0, drafter=False)
    message = [{"role": "user", "content": "HELLO"}]
    result: Any = plain.generate(message, max_new_tokens=12, temperature=0, trace=True)
    assert steps_as_json(result.trace) == found["explain"]


@pytest.mark.parametrize("value", [1.0, 1.5], ids=["none given", "above one"])
def test_values_that_are_no_probabilities_promise_nothing(eagle: Engine, value: float) -> None:
    result: Any = eagle.generate([5, 9, 1], max_new_tokens=8, temperature=0, trace=True)
    step = result.trace.steps[0]
    nodes = [node.model_copy(update={"value": value}) for node in step.nodes]
    assert step.expected is not None
    assert step.model_copy(update={"nodes": nodes}).expected is None
