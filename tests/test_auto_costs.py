"""What the strategy ``auto`` measures: seconds, what drafts bring, and what it makes of them."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import pytest

from specdec_plugins.auto.costs import Costs, doublings
from specdec_plugins.auto.curve import SETTLED, Curve
from specdec_plugins.auto.memory import Memory
from specdec_plugins.auto.record import Record


def curve(times: dict[int, float]) -> Curve:
    made = Curve(lambda size: size)
    for size, seconds in times.items():
        for _ in range(SETTLED):
            made.take(size, seconds)
    return made


def test_seconds_are_linear_between_sizes_and_follow_the_guess_past_them() -> None:
    known = curve({1: 1.0, 5: 3.0, 9: 4.0})
    assert [known.seconds(n) for n in (1, 3, 5, 7, 9, 18)] == [1.0, 2.0, 3.0, 3.5, 4.0, 8.0]
    assert curve({4: 2.0}).seconds(2) == 1.0
    assert curve({}).seconds(3) == 0.0


def test_a_size_costs_what_is_typical_of_it_and_never_more_than_a_larger_one() -> None:
    known = curve({})
    for seconds in (2.0, 2.1, 50.0, 1.9, 2.0):
        known.take(4, seconds)
    assert known.settled(4) and known.seconds(4) == 2.0
    known.take(2, 30.0)
    assert not known.settled(2) and known.seconds(2) == 2.0, "it was disturbed"
    for _ in range(20):
        known.take(4, 6.0)
    assert known.seconds(4) == 6.0, "contexts grow"


def test_a_size_that_was_measured_once_and_long_ago_is_forgotten() -> None:
    known = curve({1: 1.0})
    known.take(5, 40.0)
    for _ in range(60):
        known.take(1, 1.0)
    assert known.seconds(5) == 5.0, "as it was guessed"
    assert known.settled(1)


def test_the_prompt_that_a_drafter_reads_is_a_cost_of_its_own() -> None:
    known = Costs(1)
    known.drafted([30.0], unread=100)
    assert known.read(100) == 0.0, "what of it is reading is not known yet"
    known.drafted([0.5, 0.2, 0.2], unread=3)
    known.drafted([10.5, 0.2], unread=100)
    assert known.draft(3) == pytest.approx(0.9)
    assert known.read(50) == pytest.approx(5.0)
    assert known.read(3) == 0.0, "part of the first level"


def steps_until(record: Record, drafting: bool, tokens: float, most: int = 200) -> int:
    """Take in steps that cost two plain ones and bring so many tokens, until the mind changes."""
    for count in range(1, most + 1):
        record.lost(2.0 - tokens)
        record.brought(tokens, 2.0)
        if record.drafting is drafting:
            return count
    raise AssertionError(f"it stayed {record.drafting}")


def waited_until_tried(record: Record, seconds: float = 1.0) -> int:
    for count in range(1, 10_000):
        record.waited(1.0)
        if record.tries(reading=0.0, level=seconds / 2):
            return count
    raise AssertionError("never tried")


def test_drafting_that_does_not_pay_stops_and_is_tried_for_a_small_share_of_the_time() -> None:
    record = Record()
    assert steps_until(record, False, tokens=1.0) < 20
    waits, tries = [], []
    for _ in range(12):
        waits.append(waited_until_tried(record))
        assert record.drafting and record.trying
        tries.append(steps_until(record, False, tokens=1.0))
    assert all(later >= wait - 1 for wait, later in pairwise(waits)), waits
    assert waits[0] >= 30 and 300 <= waits[-1] <= 700
    assert max(tries) <= 3
    for _ in range(20):
        record.begin()
    assert waited_until_tried(record) < waits[-1] / 2, "new texts try sooner"


@pytest.mark.parametrize("wrong", [0.1, 1.0, 10.0])
def test_what_tries_lose_is_a_small_share_however_their_cost_was_estimated(wrong: float) -> None:
    record = Record()
    steps_until(record, False, tokens=1.0)
    waited = lost = 0.0
    for _ in range(30):
        waited += waited_until_tried(record, 2.0 * wrong)
        lost += steps_until(record, False, tokens=1.0)
        record.begin()
    assert 0.1 * 0.02 * waited < lost <= 0.02 * waited + 2.0


def test_what_was_saved_for_a_dear_try_is_not_spent_on_many_cheap_ones() -> None:
    record = Record()
    steps_until(record, False, tokens=1.0)
    for _ in range(5000):
        record.waited(1.0)
        assert not record.tries(reading=1000.0, level=0.5)
    assert waited_until_tried(record) == 1
    steps_until(record, False, tokens=1.0)
    assert waited_until_tried(record) > 30


def after(texts: int, tokens: float, steps: int = 50) -> Record:
    """A record of texts, each with so many steps with drafts as long as two plain ones."""
    record = Record()
    for _ in range(texts):
        for _ in range(steps):
            record.brought(tokens, 2.0)
        record.begin()
    return record


def test_a_try_is_over_with_its_text_and_is_not_another_batch_sizes() -> None:
    record = after(texts=5, tokens=1.0)
    waited_until_tried(record)
    other = record.another(2)
    other.begin()
    assert record.trying and not other.trying and not other.drafting
    assert waited_until_tried(other) > 30
    record.begin()
    assert not record.trying and not record.drafting


def test_a_drafter_that_has_become_good_is_taken_up_at_the_first_try() -> None:
    record = Record()
    steps_until(record, False, tokens=1.0)
    waited_until_tried(record)
    for _ in range(50):
        record.brought(4.0, 2.0)
        assert record.drafting
    assert record.speedup == pytest.approx(2.0, rel=0.05)
    assert steps_until(record, False, tokens=1.0) > 5


def gain(faster: float, seed: int, steps: int = 6000, spread: float = 0.15) -> float:
    """Tokens a second over plain decoding's where steps with drafts take 2.5 plain ones and bring
    ``faster`` times as much on average, more on some texts and less on others."""
    chance, record = random.Random(seed), Record()
    tokens = seconds = 0.0
    for step in range(steps):
        if step % 50 == 0:
            record.begin()
            text = chance.uniform(1 - spread, 1 + spread)
        if record.drafting or record.tries(reading=0.0, level=0.75):
            came = max(1.0, chance.gauss(2.5 * faster * text, 1.2))
            record.lost(2.5 - came)
            record.brought(came, 2.5)
            tokens, seconds = tokens + came, seconds + 2.5
        else:
            record.waited(1.0)
            tokens, seconds = tokens + 1.0, seconds + 1.0
    return tokens / seconds


@pytest.mark.parametrize("seed", range(3))
def test_drafts_that_are_a_fifth_faster_are_kept_up_whatever_text_comes(seed: int) -> None:
    assert gain(1.2, seed) > 1.15


def test_of_texts_that_differ_those_that_drafts_suit_bring_more_than_the_mean() -> None:
    assert statistics.mean(gain(1.2, seed, spread=0.3) for seed in range(5)) > 1.235


@pytest.mark.parametrize("faster", [0.5, 0.8, 0.9, 0.95, 1.0])
def test_drafts_that_do_not_pay_cost_three_per_cent_at_most(faster: float) -> None:
    assert gain(faster, seed=0) > 0.97


def test_drafting_goes_on_a_while_where_it_would_not_begin() -> None:
    record = Record()
    for _ in range(100):
        record.brought(1.07, 1.0)
        assert record.drafting
    steps_until(record, False, tokens=1.0)
    waited_until_tried(record)
    for _ in range(2):
        record.brought(1.07, 1.0)
    assert not record.drafting


def test_drafting_that_would_not_begin_begins_anew_with_a_text_and_is_tried_in_it() -> None:
    record = after(texts=20, tokens=2.14)
    assert not record.drafting
    assert waited_until_tried(record) < 200


def test_one_poor_text_does_not_stop_drafting_in_the_next_and_some_do() -> None:
    assert after(texts=1, tokens=1.9).drafting
    assert not after(texts=4, tokens=1.8).drafting
    record = after(texts=20, tokens=3.0)
    for _ in range(50):
        record.brought(1.6, 2.0)
    assert not record.drafting
    record.begin()
    assert record.drafting and record.speedup == pytest.approx(1.43, rel=0.02)


def test_rows_of_a_batch_count_as_texts() -> None:
    alone, many = Record(), Record(rows=8)
    for record in (alone, many):
        for _ in range(50):
            record.brought(2.0, 2.0)
        record.begin()
    assert many.speedup < alone.speedup < 1.2 and many.speedup < 1.05


@pytest.mark.parametrize(("good", "bad", "most"), [(2.0, 0.9, 50), (2.0, 0.5, 25), (3.0, 0.5, 36)])
def test_a_text_that_drafts_do_not_suit_is_found_out_in_some_tens_of_steps(
    good: float, bad: float, most: int
) -> None:
    record = Record()
    for _ in range(300):
        record.brought(2.5 * good, 2.5)
    record.begin()
    for _ in range(most):
        record.brought(2.5 * bad, 2.5)
    assert not record.drafting


def test_drafts_that_are_as_fast_as_plain_decoding_are_not_kept_up() -> None:
    record = Record()
    for _ in range(200):
        record.brought(1.0, 1.0)
    assert not record.drafting


def test_a_try_that_only_half_succeeds_does_not_begin_drafting() -> None:
    record = Record()
    steps_until(record, False, tokens=2.0)
    waited_until_tried(record)
    record.brought(1.0, 1.0)
    record.brought(1.25, 1.0)
    assert record.drafting and record.speedup < 1.1
    record.brought(1.0, 1.0)
    assert not record.drafting


def test_one_step_that_paid_is_followed_by_another() -> None:
    record = Record()
    steps_until(record, False, tokens=1.0)
    waited_until_tried(record)
    record.brought(1.0, 2.0)
    record.brought(2.5, 2.0)
    assert record.drafting and record.speedup < 1
    record.brought(1.0, 2.0)
    assert not record.drafting


def test_promises_are_believed_as_far_as_they_were_kept() -> None:
    record = Record()
    assert record.values.factor == 1.0
    for _ in range(300):
        record.values.take(accepted=1, promised=4.0)
    assert record.values.factor == pytest.approx(0.25, abs=0.1)
    for _ in range(300):
        record.values.take(accepted=4, promised=1.0)
    assert record.values.factor == 1.25, "and little further"


def test_costs_are_known_by_batch_size_and_length_and_records_by_about_a_size() -> None:
    memory = Memory()
    assert [doublings(longest) for longest in (5, 256, 500, 1000, 2100)] == [0, 0, 1, 2, 3]
    assert memory.costs_of(2, 0) is memory.costs_of(2, 0)
    assert memory.costs_of(2, 0) is not memory.costs_of(2, 1)
    assert memory.costs_of(2, 0) is not memory.costs_of(3, 0)
    assert memory.record("a", 8) is memory.record("a", 7)
    assert memory.record("a", 8) is not memory.record("a", 4)
    assert memory.record("a", 8) is not memory.record("b", 8)


def test_a_new_length_begins_with_the_costs_of_the_nearest_that_is_known() -> None:
    memory = Memory()
    near, empty = memory.costs_of(1, 0), memory.costs_of(1, 1)
    for _ in range(3):
        near.forwards.take(1, 1.0)
        near.forwards.take(9, 1.8)
        near.drafted([0.5, 0.2], unread=1)
    guess = memory.costs_of(1, 2)
    assert not guess.plain_known and not empty.plain_known
    for _ in range(3):
        guess.forwards.take(1, 2.0)
    assert guess.forwards.seconds(9) == pytest.approx(3.6)
    assert guess.draft(3) == pytest.approx(0.9)
    assert memory.costs_of(2, 2).draft(3) == 0.0
