"""Benchmarks with prompts of several turns: each contender goes on from its own answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from specdec import Engine, bench
from specdec.bench.benchmark_report import PLAIN
from specdec.bench.chat_turns import ChatTurns, first_difference_in_turns
from specdec.bench.contenders import Decoded, StrategyContender
from specdec.bench.differences import logit_gap

NEW = 5
SETS = [bench.PromptSet("chat", ("ABC", "D", "EF"), (("GH", "I"), (), ("JKLM",)))]


@dataclass(frozen=True)
class Recorded:
    """A strategy, and what it was given and made, call by call."""

    inner: StrategyContender
    calls: list[tuple[list[list[int]], list[list[int]]]] = field(default_factory=list)
    wrong_after: int | None = None
    label: str = "recorded"
    most_rows: int | None = None

    def decode(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], settings: bench.Settings
    ) -> Decoded:
        decoded = self.inner.decode(rows, seeds, settings)
        if self.wrong_after is not None and len(rows[0]) > self.wrong_after:
            decoded.tokens[0][2] = (decoded.tokens[0][2] + 1) % 40
        self.calls.append(([list(row) for row in rows], decoded.tokens))
        return decoded

    def may_differ(self, *, greedy: bool) -> str | None:
        return None

    def facts(self) -> dict[str, Any]:
        return {}


def encoded(engine: Engine, **more: Any) -> list[bench.Prompt]:
    return bench.encode_sets(SETS, engine, max_new_tokens=NEW, **more)


def run(engine: Engine, recorded: Recorded, **changes: Any) -> bench.Report:
    settings = bench.Settings(max_new_tokens=NEW, repetitions=1, **changes)
    return bench.run(
        {"eagle2": engine}, encoded(engine), settings, transformers=False, peers=[recorded]
    )


def test_every_turn_is_read_after_the_contenders_own_answers(plain: Engine, eagle: Engine) -> None:
    recorded = Recorded(StrategyContender("x", plain))
    report = run(eagle, recorded)
    calls = recorded.calls[-6:]  # after the one that warms up: 3, 1 and 2 turns
    tokenizer: Any = plain.tokenizer
    said = {"ABC": ("GH", "I"), "D": (), "EF": ("JKLM",)}
    found = []
    at = 0
    for first, later in said.items():
        messages: list[dict[str, str]] = []
        for text in (first, *later):
            messages.append({"role": "user", "content": text})
            wanted = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
            (row,), (answer,) = calls[at]
            assert row == wanted
            shown = tokenizer.decode(answer, skip_special_tokens=True)
            messages.append({"role": "assistant", "content": shown})
            at += 1
        found.append(len(messages) // 2)
    assert found == [3, 1, 2]
    assert report.of(PLAIN).new_tokens == sum(len(made[0]) for _, made in calls)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_turns_are_added_up_and_identical_to_plain_decoding(
    plain: Engine, eagle: Engine, batch_size: int
) -> None:
    recorded = Recorded(StrategyContender("x", plain))
    report = run(eagle, recorded, batch_size=batch_size)
    own = report.of("eagle2")
    assert own.identical and own.new_tokens == report.of(PLAIN).new_tokens
    assert own.tau == own.new_tokens / own.target_forwards > 1  # type: ignore[operator]
    assert report.of(PLAIN).target_forwards == report.of(PLAIN).new_tokens
    assert own.seconds["total"] >= sum(
        own.seconds[p] for p in ("target", "draft") if p in own.seconds
    )
    assert [len(rows) for rows, _ in recorded.calls[-3:]] == (
        [3, 2, 1] if batch_size == 3 else [1] * 3
    )


def test_a_difference_says_its_turn(plain: Engine, eagle: Engine) -> None:
    longest = len(encoded(plain)[0].token_ids)
    recorded = Recorded(StrategyContender("x", plain), wrong_after=longest + 1)
    report = run(eagle, recorded)
    found = report.of("recorded").differences
    assert [(d.prompt, d.turn, d.position) for d in found] == [(0, 1, 2), (2, 1, 2)]
    (row,), (answer,) = recorded.calls[-1]  # the last turn of the last prompt
    assert found[1].logit_gap == logit_gap(plain.target.model, [*row, *answer[:2]])
    assert report.of("eagle2").identical


def test_turns_can_be_limited_to_the_first(plain: Engine) -> None:
    first = encoded(plain, turns=1)
    assert all(prompt.turns == () for prompt in first)
    assert [p.token_ids for p in first] == [p.token_ids for p in encoded(plain)]
    assert [len(p.turns) for p in encoded(plain, turns=2)] == [2, 0, 2]


def test_a_conversation_must_leave_room_for_all_its_answers(plain: Engine) -> None:
    sets = [bench.PromptSet("s", ("A", "B"), (("C",), ()))]
    half = plain.target.context_limit // 2
    found = bench.encode_sets(sets, plain, max_new_tokens=half)
    assert [prompt.index for prompt in found] == [1]
    turns = ChatTurns(plain, half)
    prompt = bench.Prompt("s", 0, (2, 4, 3), ("A", "C"))
    assert turns.next_prompt(prompt, []) == (2, 4, 3)
    assert turns.next_prompt(prompt, [[5] * half]) is None
    assert turns.next_prompt(prompt, [[5]]) is not None
    assert turns.next_prompt(prompt, [[5], [5]]) is None


def test_texts_without_a_chat_template_follow_below_each_other(model: Any, tokenizer: Any) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    engine = Engine(model, strategy="plain", tokenizer=bare)
    (prompt, *_) = encoded(engine)
    answer = bare("XYZ")["input_ids"]
    found = ChatTurns(engine, NEW).next_prompt(prompt, [answer])
    assert found == tuple(bare("ABCXYZ\nGH")["input_ids"])


def test_parting_is_the_first_turn_that_differs() -> None:
    assert first_difference_in_turns([[1], [2, 3]], [[1], [2, 3]]) is None
    assert first_difference_in_turns([[1], [2, 3]], [[1], [2, 4]]) == (1, 1)
    assert first_difference_in_turns([[1], [2]], [[1]]) == (1, 0)


def test_conversations_go_on_from_a_log(plain: Engine, eagle: Engine, tmp_path: Path) -> None:
    settings = bench.Settings(max_new_tokens=NEW, repetitions=1)
    more: dict[str, Any] = {"transformers": False, "log": tmp_path / "runs.jsonl"}
    first = bench.run({"eagle2": eagle}, encoded(plain), settings, **more)
    again = bench.run({"eagle2": eagle}, encoded(plain), settings, **more)
    assert again.results == first.results
