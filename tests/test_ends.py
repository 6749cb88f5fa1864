"""The end of a generation: drafters and policies are told of its texts, however it came."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from parts import policy_of
from test_auto import auto
from tiny import PROMPTS

from specdec import Component, Engine, Strategy, hookimpl
from specdec.decoding.draft_phase import DraftPhase
from specdec.decoding.interfaces import Features, TreeDrafter, TreeGrower, TreeProposer
from specdec.decoding.proposal import Proposal
from specdec.decoding.state import State
from specdec.decoding.tree import DraftTree
from specdec.decoding.tree_builder import TreeBuilder
from specdec.drafting.expansion import grow_level
from specdec.files.atomic_files import write_json
from specdec_plugins.auto.memory import Memory
from specdec_plugins.suffix.earlier_texts import EarlierTexts
from specdec_plugins.suffix.suffix_index import SuffixIndex

SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "seed": 4, "eos_token_id": []}
Told = list[list[list[int]]]


class Learner:
    def __init__(self, told: Told) -> None:
        self.told = told

    def learn_texts(self, texts: Sequence[Sequence[int]]) -> None:
        self.told.append([list(text) for text in texts])

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Nothing is kept by row."""


class Proposer(Learner, TreeProposer):
    def tree(self, state: State) -> DraftTree:
        return DraftTree.chain(state.root(), state.root()[:, None])


class Drafter(TreeDrafter):
    def __init__(self, told: Told) -> None:
        self.told = told

    def start(self, state: State, features: Features) -> Proposer:
        return Proposer(self.told)


class Grower(Learner, TreeGrower):
    levels = 2

    def expand(self, builder: TreeBuilder, proposal: Proposal) -> None:
        grow_level(builder, proposal, 2)
        builder.advance_best(2)


class Plugin:
    def __init__(self) -> None:
        self.told: Told = []

    @hookimpl
    def specdec_drafters(self) -> list[Component]:
        return [Component("told", lambda *given: Drafter(self.told))]

    @hookimpl
    def specdec_tree_policies(self) -> list[Component]:
        return [Component("told", policy_of(lambda: Grower(self.told)))]

    @hookimpl
    def specdec_strategies(self) -> list[Strategy]:
        return [Strategy("told", "told")]


@pytest.fixture(params=["proposer", "grower"])
def told(request: pytest.FixtureRequest, plain: Engine, draft: Path) -> tuple[Engine, Told]:
    """An engine, and the texts that its learner is told of."""
    plugin, model = Plugin(), plain.target.model
    if request.param == "proposer":
        return Engine(model, strategy="told", plugins=[plugin]), plugin.told
    parts: dict[str, Any] = {"drafter": draft, "policy": "told", "acceptor": "match"}
    return Engine(model, strategy="draft_model", plugins=[plugin], **parts), plugin.told


def test_texts_that_ran_to_their_end_are_told_once(told: tuple[Engine, Told]) -> None:
    engine, texts = told
    ends = tiny.tokens(engine, PROMPTS, **SETTINGS)[0][3]
    found = tiny.tokens(engine, PROMPTS, **{**SETTINGS, "eos_token_id": [ends]})
    assert texts[1:] == [found] and len({len(text) for text in found}) > 1
    session = engine.session()
    results = [session.generate(PROMPTS, **SETTINGS) for _ in range(2)]
    assert texts[2:] == [[each.token_ids for each in turn] for turn in results]


@pytest.mark.parametrize("by", ["closing", "forgetting"])
def test_texts_that_are_left_are_told_as_far_as_they_came(
    told: tuple[Engine, Told], by: str
) -> None:
    engine, texts = told
    running = engine.start(PROMPTS, **SETTINGS)
    for _ in range(3):
        next(iter(running))
    running.end(1, 2)
    assert not texts
    found = [result.token_ids for result in running.results()]
    if by == "closing":
        running.close()
        running.close()
    else:
        del running
        gc.collect()
    assert texts == [found] and len(found[1]) == 2


def test_texts_of_a_step_that_failed_or_of_no_step_are_not_told(
    told: tuple[Engine, Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, texts = told
    engine.start(PROMPTS, **SETTINGS).close()
    running = engine.start(PROMPTS, **SETTINGS)
    next(iter(running))

    def broken(*given: Any) -> Any:
        raise torch.OutOfMemoryError("in the middle of a step")

    monkeypatch.setattr(type(engine.parts.acceptor), "accept", broken)
    with pytest.raises(torch.OutOfMemoryError):
        next(iter(running))
    running.close()
    assert not texts


def test_what_auto_learned_of_texts_that_are_left_is_in_its_file(
    plain: Engine, draft: Path, tmp_path: Path
) -> None:
    file = tmp_path / "memory.json"
    own = auto(plain, draft, calibration_file=str(file))
    stream = own.stream(PROMPTS[0], **SETTINGS)
    next(stream)
    assert not file.exists()
    stream.close()
    (known,) = own.parts.policy.memory.calibrations.values()  # type: ignore[union-attr]
    (saved,) = json.loads(file.read_text()).values()
    assert saved["steps"] == known.steps > 0


def test_suffix_drafts_from_earlier_texts_as_far_as_they_came(plain: Engine) -> None:
    options = {"drafter": {"earlier_tokens": 500, "size_by_cost": False}}
    engine = plain.with_strategy("suffix", options=options)
    running = engine.start(PROMPTS, **SETTINGS)
    next(iter(running))
    next(iter(running))
    running.end(0, 1)
    running.close()
    due = SuffixIndex(8)
    for result in running.results():
        due.add_text(result.token_ids)
    earlier = engine.parts.drafter._earlier  # type: ignore[union-attr]
    assert earlier.index.size == 0, "another text may be reading it"
    next(iter(engine.start(PROMPTS, **SETTINGS)))
    assert earlier.index._followers == due._followers and due.size > 0


def test_a_learner_that_raises_keeps_no_other_from_being_told() -> None:
    class Raises:
        def learn_texts(self, texts: Sequence[Sequence[int]]) -> None:
            raise ValueError("of a plugin")

    for raises in ("_grower", "proposer"):
        phase, learner = object.__new__(DraftPhase), Learner([])
        phase._grower, phase.proposer = learner, learner  # type: ignore[assignment]
        setattr(phase, raises, Raises())
        with pytest.raises(ValueError, match="of a plugin"):
            phase.end([[1, 2]])
        assert learner.told == [[[1, 2]]]


def test_what_auto_learned_is_written_after_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where Python collects another generation in the middle of it."""
    memory, written = Memory(tmp_path / "memory.json"), []

    def interrupted(file: Path, content: Any) -> None:
        written.append("begun")
        if len(written) == 1:
            memory.save()
        write_json(file, content)
        written.append("ended")

    monkeypatch.setattr("specdec_plugins.auto.memory.write_json", interrupted)
    memory.save()
    assert written == ["begun", "ended"] * 2


def test_a_text_that_is_left_changes_nothing_until_it_is_taken_in() -> None:
    earlier, due = EarlierTexts(100, 3), SuffixIndex(3)
    earlier.add([1, 2, 7, 5])
    due.add_text([1, 2, 7, 5])
    earlier.leave([7, 8, 9])
    assert repr(earlier.index._followers) == repr(due._followers)
    earlier.take_in()
    due.add_text([7, 8, 9])
    assert repr(earlier.index._followers) == repr(due._followers)
