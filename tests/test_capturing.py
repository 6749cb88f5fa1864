"""Recorded phases: the same trees and tokens as without, and nothing stale when replayed."""

from __future__ import annotations

import gc
import itertools
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny
import torch
import transformers as hf
from counting import counting
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from typer.testing import CliRunner

import specdec.engine
import specdec.session
from specdec import Engine
from specdec.acceleration import Acceleration
from specdec.acceleration.compiling import CompiledNetwork
from specdec.acceleration.recording import Recorded
from specdec.acceptance import Acceptance
from specdec.cache import KVCache
from specdec.cli.app import app
from specdec.errors import OptionError
from specdec.growth import Growth, Proposal
from specdec.randomness import KeyedRandomness
from specdec.recorded import Graphs
from specdec.roles import Drafter
from specdec.state import State
from specdec.testing.tape import DanglingRead, Tape, TapeRecorder
from specdec.tree import DraftTree
from specdec_plugins.eagle2.policy import Eagle2Policy
from specdec_plugins.sampling.acceptors import Match

SETTINGS: dict[str, Any] = {"max_new_tokens": 80, "eos_token_id": [], "seed": 3}
STRATEGIES = {
    "eagle2": "head",
    "static_tree": "head",
    "chain": "head",
    "draft_model": "draft",
    "eagle2+draft_model": "draft",
}
Make = Callable[..., Engine]


def small_buckets(slots: int) -> int:
    """Buckets that a short text crosses."""
    return -(-slots // 48) * 48


@pytest.fixture
def taped(model: Any, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes engines that decode plainly and record on a tape."""

    def make(**arguments: Any) -> Engine:
        how = {"recorder": TapeRecorder(), "bucket": small_buckets}
        monkeypatch.setattr(
            specdec.engine, "Acceleration", lambda **given: Acceleration(**given, **how)
        )
        arguments = {"strategy": "plain", **arguments}
        return Engine(model, graphs=True, **arguments)

    return make


@pytest.fixture
def checkpoint(head: Path, draft: Path) -> Callable[[str], Path]:
    """The folder of what a strategy drafts with."""
    return lambda name: {"head": head, "draft": draft}[STRATEGIES[name]]


def graphs(engine: Engine) -> Graphs:
    found: Graphs = engine.parts.graphs  # type: ignore[attr-defined]
    return found


def phases(engine: Engine) -> list[Recorded]:
    own = graphs(engine)
    return [own.draft, own.verify, own.accept]


def facts(engine: Any, prompt: Any, **settings: Any) -> list[Any]:
    """Everything about each step of an engine or session; values of nodes to six digits."""
    session = engine.session() if isinstance(engine, Engine) else engine
    found = []
    for step in session.start(prompt, **settings):
        tree = step.tree
        chances = tree.log_value.double().exp().mul(1e6).round()
        shape = [x.tolist() for x in (tree.tokens, tree.parents, tree.valid, chances)]
        path = step.acceptance.path.tolist()
        found.append((step.new_tokens, step.accepted, step.tried, step.finished, shape, path))
    return found


# --- the same as without ---


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_replayed_steps_draft_and_write_the_same(
    plain: Engine,
    taped: Make,
    checkpoint: Callable[[str], Path],
    name: str,
    temperature: float,
    rows: int,
) -> None:
    folder = checkpoint(name)
    eager, recorded = tiny.engine(plain, name, folder), tiny.engine(taped(), name, folder)
    settings = {**SETTINGS, "temperature": temperature}
    expected = facts(eager, tiny.PROMPTS[:rows], **settings)
    assert facts(recorded, tiny.PROMPTS[:rows], **settings) == expected
    for phase in phases(recorded):
        assert phase.failure is None
        assert len(phase) > 1  # buckets were crossed
        assert phase.replays > 0.6 * len(expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_plain_decoding_is_replayed(plain: Engine, taped: Make, temperature: float) -> None:
    settings = {**SETTINGS, "temperature": temperature, "repetition_penalty": 1.2}
    engine = taped()
    assert facts(engine, tiny.PROMPTS, **settings) == facts(plain, tiny.PROMPTS, **settings)
    assert graphs(engine).verify.replays > 70 and graphs(engine).accept.replays > 70


@pytest.mark.parametrize("replacement", [True, False])
def test_sampled_drafts_and_rejection_are_replayed(
    plain: Engine, taped: Make, draft: Path, replacement: bool
) -> None:
    changes = {
        "acceptor": "rejection",
        "options": {"policy": {"depth": 3, "width": 2, "replacement": replacement}},
    }
    settings = {**SETTINGS, "temperature": 1.0, "top_p": 0.9}
    eager, recorded = (tiny.engine(p, "draft_model", draft, **changes) for p in (plain, taped()))
    expected = facts(eager, tiny.PROMPTS, **settings)
    assert facts(recorded, tiny.PROMPTS, **settings) == expected
    assert all(phase.replays > len(expected) / 2 for phase in phases(recorded))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_leave_an_eos_and_a_growing_cache_change_nothing(
    plain: Engine,
    taped: Make,
    dynamic: Engine,
    draft: Path,
    temperature: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(specdec.session, "ROOM", 20)  # so that the cache has to grow
    grown = []
    true = KVCache.grow

    def grow(self: KVCache, capacity: int) -> None:
        grown.append(capacity > self.capacity)
        true(self, capacity)

    recorded = tiny.engine(taped(), "eagle2+draft_model", draft)
    settings = {**SETTINGS, "max_new_tokens": 120, "temperature": temperature}
    settings["eos_token_id"] = [11, tiny.EOS]
    prompts = [*tiny.PROMPTS, [9, 9, 3]]
    expected = tiny.tokens(dynamic, prompts, **settings)
    monkeypatch.setattr(KVCache, "grow", grow)
    assert tiny.tokens(recorded, prompts, **settings) == expected
    assert any(grown) and len({len(tokens) for tokens in expected}) > 1
    assert all(phase.replays for phase in phases(recorded))


def test_what_a_request_asks_for_is_never_that_of_an_earlier_one(
    dynamic: Engine, taped: Make, draft: Path
) -> None:
    """Turns on one cache, where everything else that a recording reads lies still."""
    recorded = tiny.engine(taped(), "eagle2+draft_model", draft)
    ours, theirs = recorded.session(), dynamic.session()
    requests: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0},
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 3},
        {"temperature": 1.0, "seed": 8},
        {"repetition_penalty": 1.3},
        {"suppress_tokens": [1, 2, 3]},
        {"suppress_tokens": [4, 5]},
    ]
    for request in [*requests, *requests]:
        settings = {**SETTINGS, "max_new_tokens": 60, **request}
        assert facts(ours, tiny.PROMPTS[0], **settings) == facts(
            theirs, tiny.PROMPTS[0], **settings
        )
    assert all(phase.failure is None and phase.replays > 100 for phase in phases(recorded))


def test_no_path_goes_on_behind_an_eos_of_this_request(
    dynamic: Engine, taped: Make, draft: Path
) -> None:
    recorded = tiny.engine(taped(), "eagle2+draft_model", draft)
    ours, theirs = recorded.session(), dynamic.session()
    settings = {**SETTINGS, "temperature": 1.0}
    steps = list(theirs.start(tiny.PROMPTS[0], **settings))
    inner = [step.new_tokens[0][0] for step in steps if step.accepted[0] > 1]
    assert len(inner) > 5
    for _ in range(3):
        ours.generate(tiny.PROMPTS[0], **settings)
    for eos in inner:
        settings["eos_token_id"] = [eos]
        expected = facts(theirs, tiny.PROMPTS[0], **settings)
        assert facts(ours, tiny.PROMPTS[0], **settings) == expected


def test_a_later_turn_replays_what_an_earlier_one_recorded(taped: Make, draft: Path) -> None:
    engine = tiny.engine(taped(), "eagle2+draft_model", draft)
    session = engine.session()
    counts = []
    for _ in range(4):
        session.generate(tiny.PROMPTS[0], **SETTINGS)
        counts.append([len(phase) for phase in phases(engine)])
    assert counts[2] == counts[3]


READING_THE_REQUEST: dict[str, dict[str, Any]] = {
    "eagle2": {"strategy": "eagle2", "options": tiny.EAGLE2},
    "coupled": {"strategy": "chain", "options": {"policy": {"depth": 3, "coupled": True}}},
    "sampled": {"strategy": "eagle2", "policy": "sampled", "acceptor": "rejection"},
}


@pytest.mark.parametrize("name", list(READING_THE_REQUEST))
def test_a_later_generation_in_the_same_memory_replays_what_an_earlier_one_recorded(
    plain: Engine, taped: Make, head: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose allocator hands the memory of the last cache to the next one."""
    memory: dict[Any, Any] = {}
    true = KVCache.__init__

    def reusing(self: KVCache, *given: Any, **named: Any) -> None:
        true(self, *given, **named)
        for shape, group in self._groups.items():
            kept = memory.setdefault((shape, group.keys.shape), (group.keys, group.values))
            group.keys, group.values = kept

    eager, recorded = (
        p.with_strategy(drafter=head, **READING_THE_REQUEST[name]) for p in (plain, taped())
    )
    requests: list[tuple[Any, dict[str, Any]]] = [
        (tiny.PROMPTS[0], {}),
        ([9, 3, 3], {"seed": 4}),
        (tiny.PROMPTS[0], {"temperature": 1.0}),
        (tiny.PROMPTS[1], {"temperature": 1.0, "seed": 9}),
        (tiny.PROMPTS[1], {"temperature": 0.6, "repetition_penalty": 1.4}),
        # An EAGLE head has nothing to say about a token that stands alone.
        ([[4], [6, 7, 1]], {"temperature": 1.0}),
        ([[6, 7, 1], [4]], {"temperature": 1.0}),
    ]
    replays = []
    for prompt, request in [*requests, *requests]:
        settings = {**SETTINGS, "max_new_tokens": 50, **request}
        expected = facts(eager, prompt, **settings)
        with monkeypatch.context() as patched:
            patched.setattr(KVCache, "__init__", reusing)
            before = graphs(recorded).verify.replays
            assert facts(recorded, prompt, **settings) == expected
        replays.append((graphs(recorded).verify.replays - before) / len(expected))
    assert min(replays[len(requests) :]) > 0.9 > replays[0]


def test_recordings_keep_no_cache_alive(taped: Make, head: Path) -> None:
    engine = tiny.engine(taped(), "eagle2", head)
    generation = engine.session().start(tiny.PROMPTS, **SETTINGS)
    for _ in generation:
        pass
    assert all(phase.replays for phase in phases(engine))
    alive = [weakref.ref(generation.state.cache), weakref.ref(generation._drafter.cache)]
    del generation, _
    gc.collect()
    assert [cache() for cache in alive] == [None, None]


def test_a_replayed_step_reads_the_device_once_and_starts_few_operators(
    taped: Make, head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Tape.replay

    def uncounted(self: Tape) -> None:
        with _disable_current_modes():
            true(self)

    monkeypatch.setattr(Tape, "replay", uncounted)
    engine = tiny.engine(taped(), "eagle2", head)
    steps = iter(engine.session().start(tiny.PROMPTS[0], **SETTINGS))
    for _ in range(8):
        next(steps)
    before = graphs(engine).draft.replays
    with counting() as counts:
        for _ in range(4):
            next(steps)
    assert graphs(engine).draft.replays > before
    assert counts.reads == {"tolist": 4}
    started = counts.outside + counts.around + counts.inside
    assert sum(started.values()) <= 4 * 75  # about a thousand a step where nothing is replayed


def test_steps_that_were_kept_stay_what_they_were(eagle: Engine, taped: Make, head: Path) -> None:
    recorded = tiny.engine(taped(), "eagle2", head)
    ours, theirs = (tiny.steps(e, tiny.PROMPTS[0], **SETTINGS) for e in (recorded, eagle))
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(own.tree.tokens, other.tree.tokens)
        assert torch.equal(own.tree.ancestors, other.tree.ancestors)
        assert torch.equal(own.acceptance.bonus, other.acceptance.bonus)


def test_draft_forwards_are_counted_when_replayed(eagle: Engine, taped: Make, head: Path) -> None:
    recorded = tiny.engine(taped(), "eagle2", head)
    stats = [engine.generate(tiny.PROMPTS[0], **SETTINGS).stats for engine in (eagle, recorded)]
    assert stats[0].draft_forwards == stats[1].draft_forwards
    assert (stats[0].tau, stats[0].alpha) == (stats[1].tau, stats[1].alpha)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_policy_that_learns_from_what_it_grew_learns_the_same(
    plain: Engine, taped: Make, head: Path, temperature: float
) -> None:
    eager, recorded = (tiny.engine(p, "auto", head) for p in (plain, taped()))
    settings = {**SETTINGS, "temperature": temperature}
    expected = facts(eager, tiny.PROMPTS, **settings)
    assert facts(recorded, tiny.PROMPTS, **settings) == expected
    assert graphs(recorded).draft.replays > len(expected) / 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_growth_that_is_planned_by_measured_costs_is_replayed(
    plain: Engine, taped: Make, head: Path, temperature: float
) -> None:
    recorded = taped().with_strategy(
        "auto", drafter=head, options={"policy": {"width": 2, "children": 3, "budget": 7}}
    )
    recorded.parts.policy.looks = False  # type: ignore[union-attr]
    settings = {**SETTINGS, "temperature": temperature}
    # Every step looks at the clock as often as any other, so drafts seem to cost nothing.
    ticks = itertools.count()
    with mock.patch("time.perf_counter", lambda: next(ticks) / 1000):
        texts = [tiny.tokens(recorded, tiny.PROMPTS, **settings) for _ in range(3)]
    assert texts == [tiny.tokens(plain, tiny.PROMPTS, **settings)] * 3
    assert graphs(recorded).draft.replays > 10 and graphs(recorded).draft.failure is None


def test_models_with_windows_and_mask_types_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    how = {"recorder": TapeRecorder(), "bucket": small_buckets}
    monkeypatch.setattr(
        specdec.engine, "Acceleration", lambda **given: Acceleration(**given, **how)
    )
    config = hf.MistralConfig(**{**tiny.SHAPE, "sliding_window": 8})
    model = tiny.make_model(config)
    engines = [Engine(model, strategy="plain", graphs=on) for on in (False, True)]
    expected, found = (facts(engine, tiny.PROMPTS, **SETTINGS) for engine in engines)
    assert found == expected and graphs(engines[1]).verify.replays > 40


# --- what cannot be recorded ---


class ReadingMatch(Match):
    """Asks the device for a value."""

    def accept(self, *given: Any) -> Acceptance:
        found = super().accept(*given)
        assert int(found.length.max()) >= 0
        return found


class MaskingPolicy(Eagle2Policy):
    """Has sizes that only the device knows."""

    def expand(self, growth: Growth, proposal: Proposal) -> None:
        super().expand(growth, proposal)
        assert len(proposal.logits[proposal.logits > 0]) >= 0


def swapped(engine: Engine, role: str, kind: type) -> Engine:
    getattr(engine.parts, role).__class__ = kind
    return engine


@pytest.mark.parametrize(
    ("phase", "role", "kind", "reason"),
    [
        ("accept", "acceptor", ReadingMatch, "__int__"),
        ("draft", "policy", MaskingPolicy, "index"),
    ],
)
def test_a_part_that_reads_the_device_runs_as_it_is_with_one_warning(
    eagle: Engine, taped: Make, head: Path, phase: str, role: str, kind: type, reason: str
) -> None:
    engine = swapped(tiny.engine(taped(), "eagle2", head), role, kind)
    expected = facts(eagle, tiny.PROMPTS, **SETTINGS)
    message = f"the {phase} phase runs without a CUDA graph: recording it failed.*{reason}"
    with pytest.warns(UserWarning, match=message) as caught:
        for _ in range(2):
            assert facts(engine, tiny.PROMPTS, **SETTINGS) == expected
    assert len([w for w in caught if "CUDA graph" in str(w.message)]) == 1
    failed = {one._name: one.failure for one in phases(engine) if one.failure}
    assert list(failed) == [phase] and "HostRead" in failed[phase]
    assert sum(one.replays > 10 for one in phases(engine)) == 2


class SilentPolicy(Eagle2Policy):
    """Says nothing of being recorded."""

    growth_key = None


class SilentDrafter(Drafter):
    """Likewise, and works on the host."""

    def tree(self, state: State) -> DraftTree:
        last = state.tokens[:, :1]
        return DraftTree.chain(state.root(), torch.cat([last, last], dim=1))

    def select(self, rows: Tensor) -> None:
        """Nothing is kept."""


def test_parts_that_do_not_say_they_can_be_recorded_are_not(
    eagle: Engine, taped: Make, head: Path
) -> None:
    engine = swapped(tiny.engine(taped(), "eagle2", head), "policy", SilentPolicy)
    with pytest.warns(UserWarning, match="draft phase.*SilentPolicy does not say"):
        found = facts(engine, tiny.PROMPTS, **SETTINGS)
    assert found == facts(eagle, tiny.PROMPTS, **SETTINGS)
    assert graphs(engine).draft.replays == 0 < graphs(engine).verify.replays


class OtherRandomness(KeyedRandomness):
    """Might draw from anything."""


@pytest.mark.filterwarnings("ignore:the draft phase")
def test_another_generator_is_not_recorded(eagle: Engine, taped: Make, head: Path) -> None:
    engine = tiny.engine(taped(), "eagle2", head)
    engine.make_randomness = OtherRandomness  # type: ignore[method-assign, assignment]
    settings = {**SETTINGS, "temperature": 1.0}
    with pytest.warns(UserWarning, match="accept phase.*OtherRandomness does not say"):
        found = facts(engine, tiny.PROMPTS, **settings)
    assert found == facts(eagle, tiny.PROMPTS, **settings)
    assert graphs(engine).accept.replays == 0 < graphs(engine).verify.replays


def test_processors_that_run_row_by_row_run_as_they_are(
    eagle: Engine, taped: Make, head: Path
) -> None:
    engine = tiny.engine(taped(), "eagle2", head)
    settings = {**SETTINGS, "no_repeat_ngram_size": 2}
    with pytest.warns(UserWarning, match="accept phase.*logits processors run row by row"):
        found = facts(engine, tiny.PROMPTS, **settings)
    assert found == facts(eagle, tiny.PROMPTS, **settings)
    assert graphs(engine).accept.failure is None and graphs(engine).accept.replays == 0
    assert graphs(engine).draft.replays > 10 and graphs(engine).verify.replays > 10
    facts(engine, tiny.PROMPTS, **SETTINGS)
    assert graphs(engine).accept.replays > 10


def test_the_path_verifier_runs_as_it_is(eagle: Engine, taped: Make, head: Path) -> None:
    engine = tiny.engine(taped(), "eagle2", head, verifier="path")
    settings = {**SETTINGS, "max_new_tokens": 12}
    with pytest.warns(UserWarning, match="verify phase.*PathVerifier does not say"):
        found = tiny.tokens(engine, tiny.PROMPTS, **settings)
    assert found == tiny.tokens(eagle, tiny.PROMPTS, **settings)


def test_trees_made_on_the_host_are_verified_by_a_recording(plain: Engine, taped: Make) -> None:
    engines = [plain.with_strategy("plain"), taped()]
    for engine in engines:
        engine.parts = replace(engine.parts, drafter=SilentDrafter())
    eager, recorded = engines
    assert facts(recorded, tiny.PROMPTS, **SETTINGS) == facts(eager, tiny.PROMPTS, **SETTINGS)
    assert graphs(recorded).verify.replays > 10 and graphs(recorded).accept.replays > 10


def test_a_stale_tensor_is_caught(
    dynamic: Engine, taped: Make, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a position worked out before the step is read while recording."""
    monkeypatch.setattr(State, "derived", ())
    settings = {**SETTINGS, "temperature": 1.0}
    engine = tiny.engine(taped(), "eagle2+draft_model", draft)
    try:
        found = facts(engine, tiny.PROMPTS, **settings)
    except DanglingRead:
        return
    assert found != facts(dynamic, tiny.PROMPTS, **settings)


# --- asking for it ---


def test_a_cpu_is_refused(model: Any) -> None:
    with pytest.raises(OptionError, match=r"graphs=True: CUDA graphs need a CUDA GPU.*on cpu"):
        Engine(model, strategy="plain", graphs=True)


def test_the_command_line_refuses_a_cpu_in_one_message() -> None:
    arguments = ["generate", "HELLO", "--device", "cpu", "--graphs", "--max-new-tokens", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "CUDA graphs need a CUDA GPU" in result.stderr
    assert "Traceback" not in result.stderr


def test_compiled_networks_are_recorded_after_they_have_been_compiled() -> None:
    both = Acceleration(compile=True, graphs=True, hot=5)
    assert both.first_recorded == 5
    network = both.network(nn.Linear(2, 2))
    assert isinstance(network, CompiledNetwork) and not network._graphs


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@needs_gpu
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", list(STRATEGIES))
def test_cuda_graphs_draft_and_write_the_same(
    checkpoint: Callable[[str], Path], name: str, temperature: float
) -> None:
    model = tiny.make_model().cuda()
    eager, recorded = (
        tiny.engine(Engine(model, strategy="plain", graphs=on), name, checkpoint(name))
        for on in (False, True)
    )
    settings = {**SETTINGS, "temperature": temperature}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = facts(recorded, tiny.PROMPTS, **settings)
    assert found == facts(eager, tiny.PROMPTS, **settings)
    assert all(phase.replays > len(found) / 2 for phase in phases(recorded))
