"""Traces: the record of a run is the run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from tiny import EOS, PROMPTS

from specdec import Engine, GenerationResult
from specdec.errors import OptionError
from specdec.tracing.record import Outcome, Trace


def traced(engine: Engine, prompt: Any, **settings: Any) -> tuple[GenerationResult, Trace]:
    """A result and its trace."""
    result = engine.generate(prompt, trace=True, **settings)
    assert isinstance(result, GenerationResult) and result.trace is not None
    return result, result.trace


def check(result: GenerationResult, trace: Trace) -> None:
    """Whatever the settings, the record says what the result says."""
    stats = result.stats
    assert trace.tokens == result.token_ids and trace.text == result.text
    assert (trace.finish_reason, trace.strategy) == (result.finish_reason, result.strategy)
    assert (trace.tau, len(trace.steps)) == (stats.tau, stats.target_forwards)
    assert sum(len(step.accepted) for step in trace.steps) == stats.accepted_tokens
    for depth, rate in enumerate(stats.alpha, start=1):
        tried = [step for step in trace.steps if step.tried >= depth]
        assert rate == sum(len(step.accepted) >= depth for step in tried) / len(tried)
    if trace.text is not None:
        assert "".join(step.text or "" for step in trace.steps) == trace.text
    for step in trace.steps:
        path = step.accepted
        assert [token.token for token in step.tokens] == [node.token for node in path] + (
            [step.wanted.token] if step.wanted else []
        )
        assert [node.parent for node in path] == [0, *(node.node for node in path)][: len(path)]
        end = path[-1].node if path else 0
        assert all(node.parent == end for node in step.rejected)
        decided = [n for n in step.nodes if n.outcome in (Outcome.ACCEPTED, Outcome.REJECTED)]
        assert step.tried == max((node.depth for node in decided), default=0)
        places = {0: 0, **{node.node: node.depth for node in step.nodes}}
        for node in step.nodes:
            assert node.depth == places[node.parent] + 1
            assert 0 <= node.probability <= 1 + 1e-6
        taken = [node.probability for node in path]
        assert [token.probability for token in step.tokens][: len(path)] == pytest.approx(taken)


@given(
    strategy=st.sampled_from(["eagle2", "auto", "static_tree", "chain"]),
    prompt=st.lists(st.integers(8, 40), min_size=1, max_size=8),
    temperature=st.sampled_from([0.0, 1.0]),
    eos=st.sampled_from([None, [], EOS]),
    seed=st.integers(0, 99),
    new=st.integers(1, 16),
)
def test_accepted_paths_and_bonus_tokens_put_together_are_the_text(
    plain: Engine,
    head: Any,
    strategy: str,
    prompt: list[int],
    temperature: float,
    eos: Any,
    seed: int,
    new: int,
) -> None:
    engine = tiny.engine(plain, strategy, head)
    settings: dict[str, Any] = {} if eos is None else {"eos_token_id": eos}
    check(
        *traced(engine, prompt, max_new_tokens=new, temperature=temperature, seed=seed, **settings)
    )


def test_the_same_of_every_row_of_a_ragged_batch(eagle: Engine) -> None:
    results = eagle.generate(PROMPTS, trace=True, max_new_tokens=12, temperature=1, seed=3)
    assert isinstance(results, list)
    for result in results:
        assert result.trace is not None
        check(result, result.trace)


@pytest.mark.parametrize("acceptor", ["rejection", "typical"])
def test_the_same_under_other_acceptors(dynamic: Engine, draft: Any, acceptor: str) -> None:
    options = {"drafter": {"checkpoint": str(draft)}}
    engine = dynamic.with_strategy("draft_model", acceptor=acceptor, options=options)
    check(*traced(engine, PROMPTS[0], max_new_tokens=16, temperature=1, seed=5))


def test_a_stop_string_ends_the_texts_of_the_steps_where_it_ends_the_text(dynamic: Engine) -> None:
    whole, _ = traced(dynamic, "ABC", max_new_tokens=24, temperature=0)
    assert whole.text is not None
    for start in range(2, 12):
        stop = whole.text[start : start + 2]
        check(*traced(dynamic, "ABC", max_new_tokens=24, temperature=0, stop=stop))


def test_what_the_target_took_beyond_the_end_is_told_from_what_it_rejected(dynamic: Engine) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 24, "temperature": 0, "eos_token_id": []}
    seen = 0
    for prompt in PROMPTS:
        _, whole = traced(dynamic, prompt, **settings)
        for number, step in enumerate(whole.steps):
            before = whole.steps[:number]
            text = "".join(each.text or "" for each in before)
            written = [token.token for each in before for token in each.tokens]
            ids, stop = [token.token for token in step.tokens], step.tokens[0].text
            if len(step.accepted) > 1 and stop and stop not in text:
                # The text ends with the first of several draft tokens that the target takes.
                found, trace = traced(dynamic, prompt, stop=stop, **settings)
                check(found, trace)
                if found.token_ids != [*written, ids[0]]:
                    continue  # a special token, which the text does not show, has it in its name
                last = trace.steps[-1]
                cut = [node for node in last.nodes if node.outcome is Outcome.CUT]
                assert [node.token for node in cut] == ids[1 : len(step.accepted)]
                assert [node.depth for node in cut] == [*range(2, len(step.accepted) + 1)]
                assert len(last.accepted) == 1 and not last.rejected
                seen += 1
    assert seen, "no step of any text accepted two draft tokens, the first with a new text"


def test_nodes_and_values_are_those_of_the_trees(eagle: Engine) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 8, "temperature": 0}
    steps = tiny.steps(eagle, PROMPTS[0], **settings)
    _, trace = traced(eagle, PROMPTS[0], **settings)
    for step, record in zip(steps, trace.steps, strict=True):
        tree = step.tree
        assert [n.token for n in record.nodes] == tree.tokens[0, 1:][tree.valid[0, 1:]].tolist()
        values = tree.log_value[0, 1:][tree.valid[0, 1:]].exp().tolist()
        assert [node.value for node in record.nodes] == pytest.approx(values)
        assert record.expected == pytest.approx(1 + sum(values))
        logits = step.verification.logits[0]
        for node in record.nodes:
            p = logits[node.parent].softmax(dim=-1)[node.token]
            assert math.isclose(node.probability, float(p), rel_tol=1e-5)


def test_seconds_of_the_steps_add_up_to_those_of_the_run(eagle: Engine) -> None:
    result, trace = traced(eagle, PROMPTS[0], max_new_tokens=12, temperature=0)
    for phase in ("draft", "verify", "accept", "commit"):
        total = sum(step.seconds[phase] for step in trace.steps)
        assert total == pytest.approx(result.stats.seconds[phase])
    assert trace.seconds == result.stats.seconds


def test_a_trace_changes_no_token_and_comes_only_if_asked_for(eagle: Engine) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1, "seed": 4}
    result, _ = traced(eagle, PROMPTS[0], **settings)
    other = eagle.generate(PROMPTS[0], **settings)
    assert isinstance(other, GenerationResult)
    assert other.trace is None and other.token_ids == result.token_ids


def test_streams_and_sessions_are_traced_alike(eagle: Engine) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0, "trace": True}
    stream = eagle.stream("ABC", **settings)
    text = "".join(stream)
    assert stream.result.trace is not None and stream.result.trace.text == text
    check(stream.result, stream.result.trace)
    again = eagle.session().generate("ABC", **settings)
    assert isinstance(again, GenerationResult) and again.trace is not None
    assert again.trace.tokens == stream.result.trace.tokens


def test_a_trace_written_as_json_is_read_again(eagle: Engine) -> None:
    _, trace = traced(eagle, "ABC", max_new_tokens=12, temperature=0)
    assert Trace.model_validate_json(trace.model_dump_json()) == trace


def test_without_a_tokenizer_there_are_tokens_and_no_text(model: Any) -> None:
    result, trace = traced(Engine(model, strategy="plain"), PROMPTS[0], max_new_tokens=3)
    check(result, trace)
    assert (trace.prompt, trace.text, trace.steps[0].text) == (None, None, None)
    assert f"#{result.token_ids[0]}" in trace.html()


def test_a_trace_that_is_neither_true_nor_false_is_refused(eagle: Engine) -> None:
    with pytest.raises(OptionError, match="trace='yes': give True or False"):
        eagle.generate("ABC", trace="yes")  # type: ignore[arg-type]
