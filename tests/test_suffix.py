"""Suffix drafts: every token followed such tokens before, by frequency, and the text is plain's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from specdec import Engine, bench
from specdec.bench.contenders import Decoded, StrategyContender
from specdec.errors import OptionError
from specdec_plugins.suffix.earlier_texts import EarlierTexts
from specdec_plugins.suffix.suffix_index import SuffixIndex, longer
from specdec_plugins.suffix.suffix_text import SuffixText

texts = st.lists(st.integers(0, 3), max_size=40)
ALWAYS = {"drafter": {"size_by_cost": False, "min_probability": 0.01}}


def followers(text: list[int], run: list[int]) -> dict[int, int]:
    """The definition, by trying every place."""
    found: dict[int, int] = {}
    for end in range(len(run), len(text)):
        if text[end - len(run) : end] == run:
            found[text[end]] = found.get(text[end], 0) + 1
    return found


def runs_of(text: list[int], longest: int) -> list[int]:
    runs: list[int] = []
    for token in text:
        runs = longer(runs, token, longest)
    return runs


@examples(100, many=500)
@given(texts, texts, st.integers(1, 5))
def test_followers_of_the_longest_run_are_counted(
    text: list[int], end: list[int], longest: int
) -> None:
    index = SuffixIndex(longest)
    index.add_text(text)
    matched, counts = index.followers(runs_of(end, longest))
    sizes = range(1, min(longest, len(end)) + 1)
    assert matched == max((n for n in sizes if followers(text, end[-n:])), default=0)
    assert dict(counts) == (followers(text, end[-matched:]) if matched else {})


@examples(100, many=500)
@given(texts, texts, st.integers(1, 5), st.integers(1, 8))
def test_a_tree_is_that_of_the_whole_text_however_it_grew(
    start: list[int], more: list[int], longest: int, most: int
) -> None:
    text, at_once = SuffixText(longest), SuffixText(longest)
    text.extend(start)
    text.tree(most, 4, 0.01)
    text.extend(more)
    at_once.extend(start + more)
    assert text.tree(most, 4, 0.01) == at_once.tree(most, 4, 0.01)


@examples(100, many=500)
@given(texts, st.integers(1, 5), st.integers(1, 30), st.integers(1, 6))
def test_every_draft_token_followed_the_longest_match_and_probabilities_add_up(
    tokens: list[int], longest: int, most: int, depth: int
) -> None:
    text = SuffixText(longest)
    text.extend(tokens)
    nodes = text.tree(most, depth, 0.01)
    assert len(nodes) <= most
    paths: list[list[int]] = []
    below: dict[int, float] = {}
    for node in nodes:
        path = [] if node.parent < 0 else paths[node.parent]
        context = tokens + path
        sizes = range(min(longest, len(context)), 0, -1)
        match = next(n for n in sizes if followers(tokens, context[-n:]))
        assert node.token in followers(tokens, context[-match:])
        paths.append([*path, node.token])
        below[node.parent] = below.get(node.parent, 0.0) + node.probability
    assert max(map(len, paths), default=0) <= depth
    assert len({tuple(path) for path in paths}) == len(paths), "a path is drafted once"
    probabilities = [node.probability for node in nodes]
    assert probabilities == sorted(probabilities, reverse=True) and all(
        0.01 <= c < 1 for c in probabilities
    )
    for parent, total in below.items():
        assert total <= (1.0 if parent < 0 else nodes[parent].probability) + 1e-9


def test_a_more_frequent_follower_is_worth_more_and_of_equals_the_latest_comes_first() -> None:
    text = SuffixText(1)
    text.extend([7, 1, 7, 2, 7, 1, 7, 3, 7])
    tree = text.tree(3, 1, 0.001)
    assert [node.token for node in tree] == [1, 3, 2]
    assert tree[0].probability == pytest.approx(2 * tree[1].probability)


@given(st.lists(st.integers(0, 99), unique=True, max_size=40))
def test_nothing_is_drafted_where_nothing_repeats(tokens: list[int]) -> None:
    text = SuffixText(4)
    text.extend(tokens)
    assert text.tree(10, 10, 0.001) == []


@examples(50, many=300)
@given(st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=8), st.integers(1, 20))
def test_earlier_texts_are_the_latest_within_the_bound(written: list[list[int]], most: int) -> None:
    earlier = EarlierTexts(most, 3)
    for text in written:
        earlier.add(text)
    kept: list[list[int]] = []
    for text in reversed(written):
        if sum(map(len, kept)) + len(text[-most:]) > most:
            break
        kept.insert(0, text[-most:])
    rebuilt = SuffixIndex(3)
    for text in kept:
        rebuilt.add_text(text)
    assert earlier.index.size == rebuilt.size
    for end in ([0], [1, 2], [0, 0, 0], [2, 1, 0]):
        runs = runs_of(end, 3)
        (matched, counts), (expected, same) = earlier.index.followers(runs), rebuilt.followers(runs)
        assert (matched, dict(counts)) == (expected, dict(same))


def test_the_longer_match_is_preferred_and_the_texts_own_of_equals() -> None:
    earlier = SuffixIndex(4)
    earlier.add_text([1, 2, 3, 9])
    text = SuffixText(4, earlier)
    text.extend([5, 3, 6, 2, 3])
    assert text.tree(1, 1, 0.01)[0].token == 9
    text.extend([8, 2, 3])
    assert text.tree(1, 1, 0.01)[0].token == 8


@pytest.fixture(scope="module")
def plain(model: Any) -> Engine:
    return Engine(model, strategy="plain")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("earlier", [0, 200])
def test_ragged_batches_decode_like_plain_decoding_with_accepted_trees(
    plain: Engine, temperature: float, earlier: int
) -> None:
    options = {"drafter": {**ALWAYS["drafter"], "earlier_tokens": earlier}}
    engine = plain.with_strategy("suffix", options=options)
    # A set of few tokens repeats itself whatever the model thinks of it.
    few: dict[str, Any] = {"top_k": 2} if temperature else {}
    asked = {"max_new_tokens": 60, "seed": 3, "temperature": temperature, **few}
    texts = tiny.tokens(plain, tiny.PROMPTS, **asked)
    for _ in range(2):  # the second time with earlier texts
        ours = engine.generate(tiny.PROMPTS, **asked)
        assert [r.token_ids for r in ours] == texts
    assert max(r.stats.tau for r in ours) > (2.0 if earlier else 1.1)


def test_a_row_of_a_batch_is_drafted_as_alone(plain: Engine) -> None:
    engine = plain.with_strategy("suffix", options=ALWAYS)
    prompts = [[11, 12, 13, 14, 11], [21, 22, 21, 23, 21], [31, 32]]
    together = next(iter(engine.session().start(prompts, max_new_tokens=30))).tree
    for row, prompt in enumerate(prompts):
        alone = next(iter(engine.session().start([prompt], max_new_tokens=30))).tree
        assert together.valid[row].sum() == alone.size
        for name in ("tokens", "parents", "log_value"):
            found, due = getattr(together, name)[row, : alone.size], getattr(alone, name)[0]
            assert found.tolist() == due.tolist()
    assert together.branching == 2, "a tree, not a chain"


@pytest.mark.parametrize("acceptor", ["rejection", "typical"])
@pytest.mark.parametrize("options", [{"earlier_tokens": 100}, {"size_by_cost": True}])
def test_drafts_by_other_texts_or_the_clock_are_refused_where_they_decide_what_is_drawn(
    plain: Engine, acceptor: str, options: dict[str, Any]
) -> None:
    given = {"drafter": options}
    with pytest.raises(OptionError, match=f"'suffix'.*'{acceptor}'.*'match'"):
        plain.with_strategy("suffix", acceptor=acceptor, options=given)
    plain.with_strategy("suffix", options=given)


class Recorded(StrategyContender):
    """A strategy, and the forwards of each of its rounds."""

    forwards: ClassVar[list[int]] = []

    def decode(self, *asked: Any) -> Decoded:
        decoded = super().decode(*asked)
        assert decoded.stats is not None
        self.forwards.append(decoded.stats.target_forwards)
        return decoded


def test_every_repetition_of_a_benchmark_drafts_from_other_answers_alone(plain: Engine) -> None:
    options = {"drafter": {**ALWAYS["drafter"], "earlier_tokens": 500}}
    asked: dict[str, Any] = {"max_new_tokens": 20, "temperature": 0.0}
    settings = bench.Settings(**asked, repetitions=2, fields={"eos_token_id": []})
    prompts = [bench.Prompt("own", place, tuple(ids)) for place, ids in enumerate(tiny.PROMPTS)]
    contender = Recorded("suffix", plain.with_strategy("suffix", options=options))
    other = plain.with_strategy("lookup")
    bench.run({"lookup": other}, prompts, settings, peers=[contender])
    engine = plain.with_strategy("suffix", options=options)
    passes = [
        [engine.generate(ids, eos_token_id=[], **asked) for ids in tiny.PROMPTS] for _ in range(2)
    ]
    once, replayed = ([one.stats.target_forwards for one in each] for each in passes)
    assert Recorded.forwards[1:] == [*once, *once]
    assert sum(replayed) < sum(once)


def test_a_resumed_benchmark_drafts_from_the_answers_that_a_whole_one_has(
    plain: Engine, tmp_path: Path
) -> None:
    """Its first rounds were decoded by an engine that is gone."""
    settings = bench.Settings(20, temperature=0.0, repetitions=2, fields={"eos_token_id": []})
    prompts = [bench.Prompt("own", place, tuple(tiny.PROMPTS[0])) for place in range(4)]

    def forwards(log: Path, stop: str | None = None) -> tuple[bool, list[int]]:
        told: list[str] = []

        def progress(done: int, total: int, what: str) -> None:
            told.append(what)
            if what == stop and told.count(stop) > 2:
                raise KeyboardInterrupt

        options = {"drafter": {**ALWAYS["drafter"], "earlier_tokens": 500}}
        own = plain.with_strategy("suffix", options=options)
        report = bench.run(
            {"suffix": own}, prompts, settings, transformers=False, progress=progress, log=log
        )
        rounds = [json.loads(line) for line in log.read_text().splitlines()[1:]]
        kept = {
            (each["repetition"], each["batch"]): each["runs"]["suffix"]["stats"][0]
            for each in rounds
        }
        return report.interrupted, [each["target_forwards"] for each in kept.values()]

    stopped, _ = forwards(tmp_path / "runs.jsonl", "run 1: suffix")
    assert stopped
    stopped, _ = forwards(tmp_path / "runs.jsonl", "run 2: suffix")
    assert stopped
    whole = forwards(tmp_path / "other.jsonl")
    assert forwards(tmp_path / "runs.jsonl") == whole
    assert len(whole[1]) == 2 * len(prompts) and min(whole[1]) < whole[1][0]
