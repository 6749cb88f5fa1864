"""Benchmarks as a library: what is compared with what, and the arithmetic of ratios."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import specdec
from examples import examples
from specdec import Engine, bench
from specdec.bench import run_statistics
from specdec.bench.baseline import TransformersContender
from specdec.bench.benchmark_report import AGAIN, PLAIN
from specdec.bench.built_in_prompts import TASKS
from specdec.bench.contenders import Decoded, StrategyContender
from specdec.bench.differences import first_difference, logit_gap
from specdec.bench.figure_reliability import reliability
from specdec.bench.figure_tasks import tasks
from specdec.bench.figures import draw_figures
from specdec.bench.markdown import markdown
from specdec.bench.plot import plot
from specdec.bench.report_export import as_csv, as_json
from specdec.bench.report_notes import notes
from specdec.bench.report_tables import ReportTable
from specdec.bench.runner import batches_of
from specdec.bench.table import table
from specdec.decoding.metrics import Stats
from specdec.errors import OptionError, PromptError
from specdec_plugins.eagle.testing import eagle_head

PROMPTS = [bench.Prompt("tiny", i, tuple(ids)) for i, ids in enumerate(tiny.PROMPTS)]
NEW = 8


def settings(**changes: Any) -> bench.Settings:
    return bench.Settings(**{"max_new_tokens": NEW, "repetitions": 2, **changes})


@dataclass(frozen=True)
class Wrong:
    """A peer whose tokens are plain decoding's but for one position of one prompt."""

    inner: StrategyContender
    prompt: tuple[int, ...]
    position: int
    label: str = "wrong"
    most_rows: int | None = None
    reason: str | None = None

    def decode(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], settings: bench.Settings
    ) -> Decoded:
        decoded = self.inner.decode(rows, seeds, settings)
        for row, tokens in zip(rows, decoded.tokens, strict=True):
            if tuple(row) == self.prompt:
                tokens[self.position] = (tokens[self.position] + 1) % tiny.VOCAB
        return Decoded(decoded.tokens)

    def may_differ(self, *, greedy: bool) -> str | None:
        return self.reason

    def facts(self) -> dict[str, Any]:
        return {"lossless": None}


@pytest.fixture(scope="module")
def report(eagle: Engine) -> bench.Report:
    """Greedy, two repetitions, a batch of one."""
    return bench.run({"eagle2": eagle}, PROMPTS, settings())


def test_counts_are_those_of_the_generations(report: bench.Report, eagle: Engine) -> None:
    stats = [
        eagle.generate(list(p.token_ids), max_new_tokens=NEW, temperature=0).stats for p in PROMPTS
    ]
    found = report.of("eagle2")
    assert found.new_tokens == sum(s.new_tokens for s in stats)
    assert found.target_forwards == found.steps == sum(s.target_forwards for s in stats)
    assert found.draft_forwards == sum(s.draft_forwards for s in stats)
    assert found.tau == found.new_tokens / found.target_forwards


def test_plain_is_its_own_baseline(report: bench.Report) -> None:
    plain = report.of(PLAIN)
    assert (plain.tau, plain.speedup.median, plain.identical) == (1.0, 1.0, True)
    assert [result.strategy for result in report.results] == ["plain", "transformers", "eagle2"]


def test_phases_add_up_to_the_whole_call(report: bench.Report) -> None:
    for result in (report.of("plain"), report.of("eagle2")):
        phases = {p: s for p, s in result.seconds.items() if p != "total"}
        assert math.isclose(sum(phases.values()), result.seconds["total"])
        assert math.isclose(sum(result.share.values()), 1)
        assert phases["verify"] > 0


def test_transformers_gives_plain_decodings_greedy_tokens(report: bench.Report) -> None:
    assert report.of("transformers").identical is True


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_are_identical_to_plain_decoding(eagle: Engine, batch_size: int) -> None:
    report = bench.run(
        {"eagle2": eagle}, PROMPTS, settings(batch_size=batch_size, repetitions=1, temperature=1.0)
    )
    assert report.of("eagle2").identical is True
    assert report.of("transformers").identical is None


def test_a_batch_does_the_work_of_its_rows(eagle: Engine) -> None:
    one, three = (
        bench.run(
            {"eagle2": eagle},
            PROMPTS,
            settings(batch_size=size, repetitions=1),
            transformers=False,
        ).of(PLAIN)
        for size in (1, 3)
    )
    assert (three.new_tokens, three.target_forwards) == (one.new_tokens, one.target_forwards)
    assert (one.steps, three.steps) == (3 * NEW, NEW)


@examples(2, many=12)
@given(position=st.integers(0, NEW - 1), index=st.integers(0, len(PROMPTS) - 1))
def test_every_wrong_token_is_found_where_it_is(plain: Engine, position: int, index: int) -> None:
    wrong = Wrong(StrategyContender("inner", plain), PROMPTS[index].token_ids, position)
    report = bench.run(
        {"also plain": plain},
        PROMPTS,
        settings(repetitions=1, batch_size=3),
        transformers=False,
        peers=[wrong],
    )
    found = report.of("wrong")
    assert found.identical is False
    assert [(d.set, d.prompt, d.position) for d in found.differences] == [("tiny", index, position)]
    assert found.differences[0].logit_gap > 0  # type: ignore[operator]
    assert found.identical_prompts == len(PROMPTS) - 1
    assert report.of("also plain").identical is True


def test_what_may_differ_is_not_called_wrong(plain: Engine) -> None:
    peer = Wrong(StrategyContender("inner", plain), PROMPTS[0].token_ids, 3, reason="it is lossy")
    report = bench.run(
        {"also plain": plain}, PROMPTS, settings(repetitions=1), transformers=False, peers=[peer]
    )
    found = report.of("wrong")
    assert (found.identical, found.identical_reason) == (None, "it is lossy")
    assert found.differences == ()
    assert found.tau is None and found.share == {}


def test_rejection_claims_no_identity_when_it_samples(eagle: Engine) -> None:
    sampled = eagle.with_strategy(
        "eagle2", acceptor="rejection", options=dict(eagle.selection.options)
    )
    assert StrategyContender("x", sampled).may_differ(greedy=True) is None
    assert "not the draw" in str(StrategyContender("x", sampled).may_differ(greedy=False))


def test_transformers_stops_at_eos_like_plain_decoding(plain: Engine) -> None:
    text = plain.generate(list(PROMPTS[0].token_ids), max_new_tokens=NEW, temperature=0)
    eos = text.token_ids[3]  # type: ignore[union-attr]
    asked = settings(batch_size=3, fields={"eos_token_id": eos, "repetition_penalty": 1.3})
    rows = [p.token_ids for p in PROMPTS]
    ours = StrategyContender("plain", plain).decode(rows, [0, 1, 2], asked).tokens
    theirs = TransformersContender(plain).decode(rows, [0, 1, 2], asked).tokens
    assert ours == theirs
    assert any(len(row) < NEW for row in ours)


def test_plain_that_is_asked_for_runs_once_and_again_for_the_noise(plain: Engine) -> None:
    report = bench.run({"plain": plain}, PROMPTS, settings(repetitions=1), transformers=False)
    assert [result.strategy for result in report.results] == ["plain"]


def test_transformers_prompt_lookup_makes_plain_text_and_its_tau_counts_forwards(
    plain: Engine,
) -> None:
    repeating = [[3, 4, 5, 6] * 8]
    asked = settings(fields={"repetition_penalty": 1.0})
    lookup = TransformersContender.with_prompt_lookup(plain).decode(repeating, [0], asked)
    assert lookup.tokens == StrategyContender("plain", plain).decode(repeating, [0], asked).tokens
    assert lookup.stats and lookup.stats.tau == len(lookup.tokens[0]) / lookup.stats.target_forwards
    one = TransformersContender(plain).decode(repeating, [0], asked)
    assert one.stats and one.stats.tau == 1


@given(
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(st.integers(0, 3), max_size=6),
)
def test_first_difference_splits_a_common_prefix(ours: list[int], theirs: list[int]) -> None:
    at = first_difference(ours, theirs)
    if at is None:
        assert ours == theirs
    else:
        assert ours[:at] == theirs[:at]
        assert ours[at : at + 1] != theirs[at : at + 1]


def runs_of(seconds: Sequence[Sequence[float]], tokens: int = 10) -> list[run_statistics.Run]:
    return [
        run_statistics.Run(repetition, batch, value, tokens, (), None, 0)
        for repetition, row in enumerate(seconds)
        for batch, value in enumerate(row)
    ]


times = st.floats(0.01, 100)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(times, min_size=width, max_size=width), min_size=1, max_size=4)
)


@given(tables, st.floats(0.1, 10))
def test_a_contender_that_is_always_k_times_as_fast_has_ratio_k(
    seconds: list[list[float]], k: float
) -> None:
    faster = [[value / k for value in row] for row in seconds]
    found = run_statistics.ratio(runs_of(faster), runs_of(seconds))
    ends = [found.median, *(found.over_prompts or ()), *(found.over_repetitions or ())]
    assert all(math.isclose(end, k, rel_tol=1e-9) for end in ends)
    assert (found.over_prompts is None) == (len(seconds[0]) == 1)
    assert (found.over_repetitions is None) == (len(seconds) == 1)


@given(tables, st.data())
def test_an_interval_holds_its_median_and_lies_within_the_extremes(
    seconds: list[list[float]], data: Any
) -> None:
    base = [[data.draw(times) for _ in row] for row in seconds[:1]]
    found = run_statistics.ratio(runs_of(seconds[:1]), runs_of(base))
    assert (found.interval is None) == (len(seconds[0]) == 1)
    if found.interval:
        ratios = [b / a for a, b in zip(seconds[0], base[0], strict=True)]
        low, high = found.interval
        assert min(ratios) * 0.999 <= low <= found.median * 1.001
        assert found.median * 0.999 <= high <= max(ratios) * 1.001
        assert run_statistics.ratio(runs_of(seconds[:1]), runs_of(base)).interval == (low, high)


def test_an_interval_is_that_of_the_median() -> None:
    seconds = [[1 / (1 + place) for place in range(41)]] * 2
    found = run_statistics.ratio(runs_of(seconds), runs_of([[1.0] * 41] * 2))
    assert found.median == pytest.approx(21) and found.interval
    low, high = found.interval  # about 41 / 2 / sqrt(41) * 1.96 to both sides
    assert 12 <= low <= 17 and 25 <= high <= 30


def test_an_interval_of_tau_narrows_with_prompts(report: bench.Report) -> None:
    def interval(count: int) -> tuple[float, float]:
        pairs = [((8, 2), (8, 8))[place % 2] for place in range(count)]
        mean = run_statistics.mean_tau([runs_with(pairs)])
        assert mean and mean.value == 8 / 5 and mean.interval
        assert mean.interval[0] < 8 / 5 < mean.interval[1]
        return mean.interval

    few, many = interval(6), interval(60)
    assert few[0] < many[0] < many[1] < few[1]
    assert report.of(PLAIN).tau_interval == (1, 1)
    low, high = report.of("eagle2").tau_interval or (0, 0)
    assert low <= report.of("eagle2").tau <= high  # type: ignore[operator]


@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1), min_size=1))
def test_a_mean_over_prompt_sets_weighs_them_alike(sets: list[list[tuple[int, int]]]) -> None:
    mean = run_statistics.mean_tau([runs_with(pairs) for pairs in sets])
    taus = [sum(t for t, _ in pairs) / sum(f for _, f in pairs) for pairs in sets]
    assert mean and mean.value == pytest.approx(sum(taus) / len(taus))
    assert (mean.interval is None) == all(len(pairs) == 1 for pairs in sets)
    if mean.interval:
        low, high = mean.interval
        ratios = [[t / f for t, f in pairs] for pairs in sets]
        assert sum(map(min, ratios)) / len(sets) <= low * 1.001
        assert high <= sum(map(max, ratios)) / len(sets) * 1.001
    none = [run_statistics.Run(0, 0, 1.0, 3, (), None, 0)]
    assert run_statistics.mean_tau([*map(runs_with, sets), none]) is None


def test_prompt_sets_are_resampled_apart() -> None:
    """Drawn together, a hundred sets would vary as much as one."""
    pairs = [(1 + place, 10) for place in range(10)]
    one, many = (run_statistics.mean_tau([runs_with(pairs)] * n) for n in (1, 100))
    assert one and many and one.interval and many.interval
    width, narrow = (b - a for a, b in (one.interval, many.interval))
    assert narrow < width / 5


def runs_with(pairs: Sequence[tuple[int, int]]) -> list[run_statistics.Run]:
    """A run for each pair of tokens and target forwards."""
    return [
        run_statistics.Run(0, place, 1.0, tokens, (stats_of(tokens, forwards),), 1, 0)
        for place, (tokens, forwards) in enumerate(pairs)
    ]


def stats_of(tokens: int, forwards: int) -> Stats:
    return Stats(tokens, forwards, 0, tokens / forwards, (), 0, {}, 0.0)


@given(tables, st.data())
def test_a_repetition_that_is_slow_for_all_changes_no_ratio(
    seconds: list[list[float]], data: Any
) -> None:
    base = [[data.draw(times) for _ in row] for row in seconds]
    slow = [data.draw(st.floats(1, 50)) for _ in seconds]
    before = run_statistics.ratio(runs_of(seconds), runs_of(base))
    after = run_statistics.ratio(
        runs_of([[v * s for v in row] for row, s in zip(seconds, slow, strict=True)]),
        runs_of([[v * s for v in row] for row, s in zip(base, slow, strict=True)]),
    )
    assert math.isclose(before.median, after.median, rel_tol=1e-9)


def test_a_ratio_is_taken_within_its_repetition() -> None:
    ours, base = runs_of([[1, 2], [10, 20]]), runs_of([[2, 4], [20, 40]])
    assert run_statistics.ratio(ours, base).median == 2
    assert run_statistics.tokens_per_second(ours)[0] == (20 / 3 + 20 / 30) / 2


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 5))
def test_batches_are_full_of_one_set_and_leave_nothing_out(counts: list[int], size: int) -> None:
    prompts = [
        bench.Prompt(f"set {s}", i, (1,)) for s, count in enumerate(counts) for i in range(count)
    ]
    batches = batches_of(prompts, size)
    assert all(len(batch) == size and len({p.set for p in batch}) == 1 for batch in batches)
    for number, count in enumerate(counts):
        order = [p.index for batch in batches for p in batch if p.set == f"set {number}"]
        assert order == [i % count for i in range(len(order))]
    assert len(batches) == sum(-(-count // size) for count in counts)
    for end in range(len(batches)):  # whenever it is stopped, no set is a batch ahead that needn't
        began = [sum(b[0].set == f"set {s}" for b in batches[:end]) for s in range(len(counts))]
        left = [began[s] for s, count in enumerate(counts) if began[s] * size < count]
        assert not left or max(began) - min(left) <= 1


@given(length=st.integers(3, 40), index=st.integers(0, 2))
def test_a_prompt_gets_the_context_that_was_asked_for(
    plain: Engine, length: int, index: int
) -> None:
    sets = [bench.PromptSet("s", ("AB", "CDEFGHIJKLMNOP", "Q"))]
    prompts = bench.encode_sets(sets, plain, max_new_tokens=4, context=length)
    assert len(prompts[index].token_ids) == length
    own = plain.tokenizer(sets[0].texts[index])["input_ids"]  # type: ignore[misc]
    message = list(prompts[index].token_ids[1:-1])  # between <user> and <bot>
    assert message[-len(own) :] == own[-len(message) :]


def test_prompts_that_leave_no_room_are_left_out(plain: Engine) -> None:
    sets = [bench.PromptSet("s", ("A" * 130, "AB", "A" * 500, "ABC"))]
    found = bench.encode_sets(sets, plain, max_new_tokens=8, count=2)
    assert [p.index for p in found] == [1, 3]
    with pytest.raises(OptionError, match="'s' leaves room for 127 new tokens"):
        bench.encode_sets(sets, plain, max_new_tokens=127)
    with pytest.raises(OptionError, match="context=100 and max_new_tokens=50"):
        bench.encode_sets(sets, plain, max_new_tokens=50, context=100)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"engines": {"it": "lookup"}}, "engine must be a specdec.Engine, not str 'lookup'"),
        ({"engines": "lookup"}, "engines must be by label"),
        ({"progress": True}, "progress=True: give a function"),
    ],
    ids=str,
)
def test_arguments_of_another_type_are_refused(
    plain: Engine, change: dict[str, Any], says: str
) -> None:
    given: dict[str, Any] = {"engines": {"it": plain}, **change}
    with pytest.raises(OptionError, match=says):
        bench.run(**given)
    with pytest.raises(OptionError, match=says):
        bench.run_at([0.0], prompts=[], settings=bench.Settings(), **given)


def test_engines_must_share_a_model(plain: Engine, eagle: Engine) -> None:
    other = Engine(tiny.make_model(), strategy="plain")
    with pytest.raises(OptionError, match="'other' has a model of its own"):
        bench.run({"eagle2": eagle, "other": other}, PROMPTS, settings())
    with pytest.raises(OptionError, match="two contenders are called 'plain'"):
        bench.run({"plain": eagle}, PROMPTS, settings())
    with pytest.raises(OptionError, match="repetitions=0"):
        settings(repetitions=0)


def test_a_stopped_run_goes_on_from_its_log_and_decodes_nothing_twice(
    eagle: Engine, tmp_path: Path
) -> None:
    log = tmp_path / "runs.jsonl"
    decoded: list[str] = []
    told: list[tuple[int, int]] = []

    def run(stop: int | None = None) -> bench.Report:
        decoded.clear()
        told.clear()

        def progress(done: int, total: int, what: str) -> None:
            told.append((done, total))
            if what.startswith("run"):
                decoded.append(what)
            if what and stop is not None and len(decoded) > stop:
                raise KeyboardInterrupt

        return bench.run(
            {"eagle2": eagle},
            PROMPTS,
            settings(repetitions=1),
            transformers=False,
            progress=progress,
            log=log,
        )

    first = run(stop=4)  # plain, eagle2, plain again; the second round is cut off
    assert first.interrupted and first.of(PLAIN).prompts == 1 and told[-1][0] < told[-1][1]
    with log.open("a") as file:
        file.write('{"repetition": 0, "ba')  # killed while it wrote
    whole, total = run(), 3 * (1 + len(PROMPTS))
    assert told == [(done, total) for done in range(3, total + 1)]  # a round was there
    assert len(decoded) == 3 * (len(PROMPTS) - 1) and not whole.interrupted
    again = run()
    assert decoded == [] and told == [(total, total)]
    for ours, theirs in zip(whole.results, again.results, strict=True):
        assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert whole.of("eagle2").alpha and whole.of("eagle2").identical


@pytest.mark.parametrize(
    "text",
    ["nonsense", "nonsense\n", "[]\n", '{"results": []}', '{"benchmark": 3}\n', '{"a": 1}\n'],
)
def test_a_log_of_something_else_is_refused(eagle: Engine, tmp_path: Path, text: str) -> None:
    log = tmp_path / "runs.jsonl"
    log.write_text(text)
    with pytest.raises(OptionError, match="no runs of a benchmark"):
        bench.run({"eagle2": eagle}, PROMPTS, settings(), transformers=False, log=log)
    assert log.read_text() == text


def test_a_log_of_another_benchmark_is_refused_by_what_differs(
    eagle: Engine, tmp_path: Path
) -> None:
    log = tmp_path / "runs.jsonl"
    small = {"eagle2": eagle}
    bench.run(small, PROMPTS[:1], settings(repetitions=1), transformers=False, log=log)
    with pytest.raises(OptionError, match=r"another benchmark: there prompts\.sets is"):
        bench.run(small, PROMPTS, settings(repetitions=1), transformers=False, log=log)
    with pytest.raises(
        OptionError, match=r"another benchmark: there contenders.*another folder, --out"
    ):
        bench.run(small, PROMPTS[:1], settings(repetitions=1), log=log)
    (tmp_path / "head").mkdir()
    head = eagle_head(eagle.target.model, tmp_path / "head")
    own = {role: dict(given) for role, given in eagle.selection.options.items()}
    own["drafter"].pop("checkpoint")
    other = eagle.with_strategy("eagle2", drafter=head, options=own)
    with pytest.raises(OptionError, match=r"another benchmark: there .*draft weights"):
        bench.run({"eagle2": other}, PROMPTS[:1], settings(), transformers=False, log=log)
    more = bench.run(small, PROMPTS[:1], settings(repetitions=2), transformers=False, log=log)
    assert more.repetitions == 2


@pytest.mark.parametrize(
    "changed", ["machine processor", "machine threads", "machine gpu", "versions torch"]
)
def test_a_log_of_another_machine_is_refused_by_what_differs(
    plain: Engine, tmp_path: Path, changed: str
) -> None:
    """Its speeds would be mixed with those of this one."""
    log = tmp_path / "runs.jsonl"

    def run() -> bench.Report:
        engines = {"other": plain}
        return bench.run(engines, PROMPTS[:1], settings(repetitions=1), transformers=False, log=log)

    run()
    first, rest = log.read_text().split("\n", 1)
    header = json.loads(first)
    assert header["benchmark"][changed] != "another"
    header["benchmark"][changed] = "another"
    log.write_text(f"{json.dumps(header)}\n{rest}")
    with pytest.raises(OptionError, match=f"there {changed} is 'another', here "):
        run()


@pytest.mark.parametrize("others", [1, 2, 3])
def test_plain_is_compared_with_itself_half_a_round_later(plain: Engine, others: int) -> None:
    order: list[str] = []
    bench.run(
        {f"other {i}": plain for i in range(others)},
        PROMPTS,
        settings(max_new_tokens=1),
        transformers=False,
        progress=lambda done, total, what: order.append(what.partition(": ")[2]),
    )
    size = others + 2
    rounds = [order[start : start + size] for start in range(0, len(order) - 1, size)]
    assert len(rounds) == 1 + 2 * len(PROMPTS)
    for each in rounds:
        assert abs(each.index(PLAIN) - each.index(AGAIN)) >= size // 2


def test_interrupt_keeps_whole_rounds_and_whole_repetitions(eagle: Engine) -> None:
    each = len(PROMPTS) * 3  # plain, eagle2, plain again

    def run(stop: int) -> bench.Report:
        def progress(done: int, total: int, what: str) -> None:
            if done == 3 + stop and what:  # three runs warm up
                raise KeyboardInterrupt

        return bench.run(
            {"eagle2": eagle}, PROMPTS, settings(), transformers=False, progress=progress
        )

    part, whole = run(stop=4), run(stop=each + 5)
    assert part.interrupted and whole.interrupted
    assert (part.of(PLAIN).prompts, part.repetitions) == (1, 1)
    assert (whole.of(PLAIN).prompts, whole.repetitions) == (len(PROMPTS), 1)
    with pytest.raises(KeyboardInterrupt):
        run(stop=2)


@dataclass(frozen=True)
class Failing:
    """A peer that decodes as a strategy does, and raises an error in the second repetition."""

    inner: StrategyContender
    error: Exception
    label: str = "failing"
    most_rows: int | None = None
    decoded: list[Decoded] = dataclasses.field(default_factory=list)

    def decode(
        self, rows: Sequence[Sequence[int]], seeds: Sequence[int], settings: bench.Settings
    ) -> Decoded:
        if len(self.decoded) == 1 + len(PROMPTS) + 1:  # the first warms up
            raise self.error
        self.decoded.append(self.inner.decode(rows, seeds, settings))
        return self.decoded[-1]

    def may_differ(self, *, greedy: bool) -> str | None:
        return None

    def facts(self) -> dict[str, Any]:
        return {"lossless": True}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no memory for that many.\nAnd more"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        PromptError("no room"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whole_repetitions_are_kept_when_a_contender_fails(plain: Engine, error: Exception) -> None:
    peer = Failing(StrategyContender("inner", plain), error)
    report = bench.run({"other": plain}, PROMPTS, settings(), transformers=False, peers=[peer])
    assert report.interrupted and report.repetitions == 1
    assert report.failure == f"failing: {str(error).splitlines()[0].rstrip('.')}"
    assert {each.prompts for each in report.results} == {len(PROMPTS)}
    assert f"It ended there: {report.failure}." in notes(report)


def test_a_bug_of_a_contender_is_not_taken_for_its_failure(plain: Engine) -> None:
    peer = Failing(StrategyContender("inner", plain), RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        bench.run({"other": plain}, PROMPTS, settings(), transformers=False, peers=[peer])


def test_what_was_measured_before_a_log_was_found_to_be_anothers_is_reported(
    plain: Engine, tmp_path: Path
) -> None:
    (tmp_path / "runs-t1.jsonl").write_text("nonsense\n")
    reports = bench.run_at(
        [0.0, 1.0],
        {"other": plain},
        PROMPTS[:1],
        settings(repetitions=1),
        transformers=False,
        log=tmp_path / "runs.jsonl",
    )
    assert [report.settings["temperature"] for report in reports] == [0]
    assert reports[0].interrupted and "no runs of a benchmark" in str(reports[0].failure)


def test_a_gap_that_memory_does_not_suffice_for_costs_no_runs(plain: Engine) -> None:
    model, errors = plain.target.model, [torch.OutOfMemoryError("full"), RuntimeError("a bug")]

    def fail(*_: Any) -> None:
        raise errors.pop(0)

    with model.register_forward_pre_hook(fail):
        assert logit_gap(model, [5, 9]) is None
        with pytest.raises(RuntimeError, match="a bug"):
            logit_gap(model, [5, 9])
    assert logit_gap(model, [5, 9]) is not None


@examples(3, many=12)
@given(rounds=st.integers(1, 5))
def test_the_notes_of_a_stopped_run_say_how_many_prompts_were_measured(
    plain: Engine, rounds: int
) -> None:
    prompts = [dataclasses.replace(p, set=name) for name in "ab" for p in PROMPTS]
    each = 3  # contenders: plain, other, plain again

    def progress(done: int, total: int, what: str) -> None:
        if done == each * (1 + rounds) and what:  # the first is the warm-up
            raise KeyboardInterrupt

    stopped, whole = (
        bench.run(
            {"other": plain},
            prompts,
            settings(repetitions=1),
            transformers=False,
            progress=progress if stops else None,
        )
        for stops in (True, False)
    )
    measured = {name: stopped.of(PLAIN, name).prompts for name in "ab"[:rounds]}
    assert sum(measured.values()) == rounds < len(prompts)
    said = "\n".join(notes(stopped))
    assert f"\n{rounds} of {len(prompts)} prompts of " in said
    for name in "ab":
        assert f"{name} {measured.get(name, 0)} of {len(PROMPTS)}" in said
    assert f"\n{len(prompts)} prompts of " in (said := "\n".join(notes(whole)))
    assert f" of {len(prompts)} prompts" not in said and "Interrupted" not in said


def test_a_report_from_a_gpu_says_whose_seconds_phases_are(plain: Engine) -> None:
    engines = {"other": plain}
    report = bench.run(engines, PROMPTS[:1], settings(repetitions=1), transformers=False)
    said = "what a GPU still computes"
    assert said not in "\n".join(notes(report))
    assert said in "\n".join(notes(dataclasses.replace(report, device="cuda:0")))


def test_progress_ends_at_its_total(plain: Engine) -> None:
    seen: list[tuple[int, int]] = []
    bench.run(
        {"also plain": plain},
        PROMPTS[:1],
        settings(repetitions=1),
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == list(range(len(seen)))
    assert seen[-1] == (8, 8)


def test_records_say_the_same(report: bench.Report) -> None:
    found = json.loads(json.dumps(as_json(report)))
    rows = [line.split(",") for line in as_csv([report]).splitlines()]
    for own, result, row in zip(found["results"], report.results, rows[1:], strict=True):
        assert own["speedup"] == result.speedup.median
        assert dict(zip(rows[0], row, strict=False))["tau"] == str(result.tau)
    assert found["noise"]["ratio"] == report.noise.median
    assert found["noise"]["quiet"] == (0.95 <= report.noise.median <= 1.05)
    assert found["versions"]["torch"] and found["machine"]["threads"] and found["date"]


def test_records_are_written_whatever_a_contender_says_of_itself(plain: Engine) -> None:
    @dataclass(frozen=True)
    class Odd(Wrong):
        def facts(self) -> dict[str, Any]:
            return {"options": {"policy": {"table": Path("t.pt"), "by": object()}}}

    peer = Odd(StrategyContender("inner", plain), (), 0, label="odd")
    once = settings(repetitions=1)
    found = bench.run({"other": plain}, PROMPTS[:1], once, transformers=False, peers=[peer])
    (row,) = [
        row for row in json.loads(json.dumps(as_json(found)))["results"] if row["strategy"] == "odd"
    ]
    assert row["options"] == {"policy": {"table": "t.pt", "by": "<object object>"}}
    assert "t.pt" in markdown([found]) and as_csv([found])


def test_figures_show_whatever_was_measured(
    report: bench.Report, plain: Engine, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    once = settings(repetitions=1)
    alone = bench.run({"plain": plain}, PROMPTS[:1], once, transformers=False)
    names = ("tasks", "acceptance", "positions", "reliability")
    undrafted = bench.run({"also plain": plain}, PROMPTS[:1], once, transformers=False)
    wanted = {
        "everything": (report, [f"{name}-t0.png" for name in names]),
        "one prompt, no drafts": (undrafted, ["tasks-t0.png"]),
        "the baseline alone": (alone, []),
    }
    for name, (measured, files) in wanted.items():
        results = json.loads(json.dumps({"reports": [as_json(measured)], "ablations": []}))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of a layout that does not fit
            drawn = draw_figures(results, tmp_path)
        assert [path.name for path in drawn] == files, name
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_a_figure_without_a_bin_to_show_keeps_its_layout(
    report: bench.Report, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    found = json.loads(json.dumps(as_json(report)))
    for row in found["results"]:
        for each in (row["reliability"] or {"curve": []})["curve"]:
            each["count"] = min(1, each["count"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        draw_figures({"reports": [found]}, tmp_path)


def test_options_of_a_report_say_files_of_specdec_without_where_it_is_installed() -> None:
    folder = Path(specdec.__file__).parent / "models" / "smollm2"
    policy = SimpleNamespace(model_dump=lambda: {"vocabulary": str(folder / "v.json"), "k": 2})
    selection = SimpleNamespace(names={}, parsed={"drafter": policy})
    parts = SimpleNamespace(acceptor=SimpleNamespace(lossless=True))
    engine: Any = SimpleNamespace(selection=selection, parts=parts)
    said = StrategyContender("any", engine).facts()["options"]
    assert said == {"drafter": {"vocabulary": "specdec/models/smollm2/v.json", "k": 2}}


def test_ticks_are_plain_numbers(report: bench.Report) -> None:
    pytest.importorskip("matplotlib")
    found = json.loads(json.dumps(as_json(report)))
    figure = reliability(found, [row["strategy"] for row in found["results"]])
    assert figure is not None
    figure.draw_without_rendering()
    ticks = [
        label.get_text()
        for axes in figure.axes
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    ]
    assert "0" in ticks and not any("$" in tick for tick in ticks)


def test_confidences_of_coupled_drafts_are_told_from_those_that_the_drafter_states(
    report: bench.Report,
) -> None:
    pytest.importorskip("matplotlib")
    found = json.loads(json.dumps(as_json(report)))
    (row,) = [row for row in found["results"] if row["strategy"] == "eagle2"]
    policy = row["options"]["policy"]

    def also(label: str, name: str, **options: Any) -> dict[str, Any]:
        parts = {**row["parts"], "policy": name}
        return {**row, "strategy": label, "parts": parts, "options": {"policy": options}}

    found["results"] = [
        also("auto", "auto", calibrated=True, coupled=True),
        also("eagle2", "eagle2", **{**policy, "coupled": True}),
        also("eagle2:own", "eagle2", **policy),
    ]
    labels = [each["strategy"] for each in found["results"]]
    wanted = {0.0: ("", ""), 1.0: (" (coupled)", "noise of the draw")}
    for temperature, (marked, said) in wanted.items():
        found["settings"]["temperature"] = temperature
        figure = reliability(found, labels)
        assert figure is not None
        names = [text.get_text().splitlines()[0] for text in figure.legends[0].get_texts()]
        shown = {name.removesuffix(" (coupled)"): name for name in names if name != "calibrated"}
        assert list(shown)[-1] == "auto" and shown["eagle2:own"] == "eagle2:own"
        assert (shown["eagle2"], shown["auto"]) == (f"eagle2{marked}", f"auto{marked}")
        assert not marked or next(iter(shown)) == "eagle2:own"
        assert said in figure.get_suptitle()
        assert ("noise" in figure.get_suptitle()) == bool(said)


def test_figures_count_the_prompts_that_were_measured(plain: Engine) -> None:
    """Not those that were asked for: the run was stopped."""
    pytest.importorskip("matplotlib")
    prompts = [dataclasses.replace(p, set="ab"[i % 2]) for i, p in enumerate(PROMPTS[:3])]
    whole = bench.run({"other": plain}, prompts, settings(repetitions=1), transformers=False)
    found = json.loads(json.dumps(as_json(whole)))
    for row in [*found["results"], *found["by_set"]]:
        row["prompts"] -= row["set"] != "b"  # one of "a" was not reached
    figure = tasks(found, ["other"])
    assert figure is not None
    assert "n = 2 prompts" in figure.axes[0].get_xlabel()
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["a (n = 1)", "b (n = 1)"]


def test_names_with_dollars_are_drawn_as_they_are(plain: Engine, tmp_path: Path) -> None:
    """matplotlib would take what is between them for mathematics, and refuse this."""
    pytest.importorskip("matplotlib")
    once = settings(repetitions=1)
    sets = ("a", r"$\x$")
    prompts = [dataclasses.replace(p, set=name) for p, name in zip(PROMPTS, sets, strict=False)]
    odd = bench.run({r"costs $\x$": plain}, prompts, once, transformers=False)
    results = json.loads(json.dumps({"reports": [as_json(odd)]}))
    assert draw_figures(results, tmp_path) == [tmp_path / "tasks-t0.png"]
    plot([odd], tmp_path / "x.png")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_terminal_shows_every_interval_and_mean(width: int) -> None:
    names = [one.name for one in TASKS]
    labels = ("plain", "eagle2:published", "transformers prompt lookup")
    rows = tuple((label, *["1.23x (0.98-1.45)"] * len(names), "7.89") for label in labels)
    console = Console(width=width, file=StringIO(), force_terminal=False)
    console.print(table(ReportTable(("method", *names, "mean"), rows)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("7.89") == len(rows)
    assert shown.count("(") == shown.count(")") == len(rows) * len(names)
    assert all(len(line) <= width for line in shown.splitlines())


def test_the_plot_is_a_picture(report: bench.Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot([report], tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
