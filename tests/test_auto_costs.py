"""What the strategy ``auto`` estimates, decides and explores, on plain numbers."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch

from specdec.decoding.clock import StepSeconds
from specdec.drafting.seconds_by_size import (
    FORGOTTEN,
    WINDOW,
    SecondsBySize,
    break_even_tokens,
    length_bucket,
)
from specdec_plugins.auto.acceptance import AcceptanceEstimates, Estimate
from specdec_plugins.auto.costs import Costs
from specdec_plugins.auto.decision import SHARE, Decision, Exploration
from specdec_plugins.auto.memory import Memory

# --- costs


def curve(times: dict[int, float]) -> SecondsBySize:
    made = SecondsBySize(rows=1)
    for size, seconds in times.items():
        for _ in range(WINDOW):
            made.take(size, seconds)
    return made


def test_seconds_are_linear_between_sizes_and_follow_the_guess_past_them() -> None:
    known = curve({1: 1.0, 5: 3.0, 9: 4.0})
    assert [known.seconds(n) for n in (1, 3, 5, 7, 9)] == [1.0, 2.0, 3.0, 3.5, 4.0]
    assert 4.0 < known.seconds(18) < 8.0
    assert curve({4: 2.0}).seconds(2) < 2.0
    assert curve({}).seconds(3) == 0.0


def test_seconds_never_fall_with_the_size_whatever_was_measured() -> None:
    chance = random.Random(1)
    known = SecondsBySize(rows=2)
    for _ in range(300):
        size = chance.choice([1, 2, 3, 5, 8, 13, 21, 34])
        known.take(size, (1 + size / 10) * chance.lognormvariate(0, 0.5))
    seconds = [known.seconds(size) for size in range(1, 60)]
    assert all(one <= other for one, other in itertools.pairwise(seconds))


def test_a_size_costs_what_is_typical_of_it_and_one_stall_shuts_none_out() -> None:
    known = curve({1: 1.0})
    known.take(5, 40.0)
    assert known.seconds(5) < 2.0, "the first measurement was disturbed"
    for seconds in (2.0, 2.1, 50.0, 1.9, 2.0):
        known.take(5, seconds)
    assert known.seconds(5) == 2.0
    for _ in range(WINDOW):
        known.take(5, 6.0)
    assert known.seconds(5) == 6.0, "contexts grow"


def test_what_sizes_took_while_the_machine_was_busy_is_forgotten() -> None:
    known = curve({1: 3.0, 5: 3.2})
    for _ in range(FORGOTTEN):
        known.take(1, 1.0)
    assert known.seconds(5) == 3.2, "nothing else was measured since"
    for _ in range(FORGOTTEN + 1):
        known.take(1, 1.0)
        known.take(9, 2.0)
    assert known.seconds(5) == 1.5, "as between the sizes that were measured since"
    assert [*known.sizes] == [1, 9]


def test_the_least_size_stays_known_however_long_ago_it_was_measured() -> None:
    known = curve({1: 1.0})
    for _ in range(2 * FORGOTTEN):
        known.take(9, 2.0)
    assert known.seconds(1) == 1.0 and known.sizes[1].known
    assert len(known.sizes[1].recent) == WINDOW // 2
    known.take(1, 30.0)
    assert known.seconds(1) == 1.0, "one stall"
    for _ in range(WINDOW // 2):
        known.take(1, 1.5)
    assert known.seconds(1) == 1.5


def test_the_prompt_that_a_drafter_reads_is_a_cost_of_its_own() -> None:
    known = Costs(1)
    for unread, levels in ((3, [9.0, 0.2]), (3, [0.5, 0.2, 0.2]), (3, [0.5, 0.2]), (3, [0.5])):
        known.take(9, 2.0, levels, unread)
    known.take(9, 2.0, [10.5, 0.2], 100)
    assert known.draft_seconds(3) == pytest.approx(0.9)
    assert known.read_seconds(200) == pytest.approx(20.0)
    assert known.read_seconds(3) == 0.0, "part of the first level"


def test_costs_are_known_by_batch_size_and_length_and_acceptance_by_about_a_size() -> None:
    memory = Memory()
    assert [length_bucket(longest) for longest in (5, 256, 500, 1000, 2100)] == [0, 0, 1, 2, 3]
    assert memory.costs(2, 0) is memory.costs(2, 0)
    assert memory.costs(2, 0) is not memory.costs(2, 1)
    assert memory.costs(2, 0) is not memory.costs(3, 0)
    assert memory.acceptance("a", 8) is memory.acceptance("a", 7)
    assert memory.acceptance("a", 8) is not memory.acceptance("a", 4)
    assert memory.acceptance("a", 8) is not memory.acceptance("b", 8)


def test_a_new_length_or_batch_size_begins_with_the_costs_of_the_nearest_that_is_known() -> None:
    memory = Memory()
    near, empty = memory.costs(1, 0), memory.costs(1, 1)
    for _ in range(5):
        near.take(1, 1.0, [], 1)
    for _ in range(5):
        near.take(9, 1.8, [0.5, 0.2], 1)
    made = memory.costs(1, 2)
    assert made.plain_known and not empty.plain_known
    assert not memory.costs(4, 0).plain_known and memory.costs(2, 0).plain_known
    assert made.step_seconds(9) == pytest.approx(1.8)
    assert made.draft_seconds(3) == pytest.approx(0.9)
    for _ in range(WINDOW):
        made.take(1, 1.5, [], 1)
    assert made.step_seconds(1) == 1.5 and near.step_seconds(1) == 1.0


# --- estimates


def test_costs_that_are_not_known_are_guessed_for_their_own_batch_size() -> None:
    memory = Memory()
    for _ in range(5):
        memory.costs(32).take(1, 1.0, [], 1)
    made, due = memory.costs(64), Costs(64)
    due.take(1, 1.0, [], 1)
    due.take(1, 1.0, [], 1)
    assert made.rows == 64 and made.step_seconds(17) == pytest.approx(due.step_seconds(17))


def test_costs_that_are_not_known_are_guessed_for_their_device() -> None:
    cpu, gpu = Memory().costs(1), Memory().costs(1, 0, break_even_tokens(torch.device("cuda")))
    for known in (cpu, gpu, wider := gpu.for_rows(2)):
        known.take(1, 1.0, [], 1)
        known.take(1, 1.0, [], 1)
    assert cpu.step_seconds(61) == pytest.approx(77 / 17)
    assert gpu.step_seconds(61) == pytest.approx(261 / 201)
    assert wider.step_seconds(61) == pytest.approx(322 / 202)


def test_generations_that_run_at_once_learn_of_their_own_text_until_it_ends() -> None:
    memory = Memory()
    costs, acceptance = memory.costs(1), memory.acceptance("a", 1)
    one, other = (Decision(2, 8, memory.exploration) for _ in range(2))
    one.open(costs, acceptance, 1)
    before = one.acceptance.drafter.means
    other.open(costs, acceptance, 1)
    other.acceptance.drafter.take(50.0, 500.0, 50.0, 50.0)
    assert one.acceptance.drafter.means == before
    assert memory.acceptance("a", 1).drafter.means == before
    other.close()
    assert memory.acceptance("a", 1).drafter.means[0] > before[0]
    one.acceptance.drafter.take(50.0, 0.0, 50.0, 50.0)
    known = memory.acceptance("a", 1).drafter.means[0]
    del one  # as of a stream that is left alone
    assert memory.acceptance("a", 1).drafter.means[0] < known


def test_an_estimate_follows_the_text_and_a_text_begins_with_those_before() -> None:
    known = Estimate(1.0)
    for _ in range(300):
        known.fade()
        known.take(1.0, 4.0)
    assert known.means[0] == pytest.approx(4.0, rel=0.02)
    known.begin()
    assert 1.5 < known.means[0] < 3.0, "one text among the first"
    for _ in range(300):
        known.fade()
    assert 1.5 < known.means[0] < 3.0, "what is not observed does not change"
    known.take(1.0, 0.0)
    assert known.means[0] < 0.2, "but it is little sure any more"


def test_a_batch_counts_as_many_texts() -> None:
    alone, many = Estimate(1.0), Estimate(1.0)
    for rows, known in ((1, alone), (8, many)):
        for _ in range(50):
            known.fade()
            known.take(rows, rows * 2.0)
        known.begin(rows)
    assert alone.means[0] < many.means[0] <= 2.0


# --- decisions


@dataclass
class World:
    """A machine on which a plain step takes 1 and one with drafts ``cost`` seconds.

    Attributes:
        tokens, seconds, drafted: so far; the seconds of each step with drafts in ``drafts``.
    """

    cost: float = 2.5
    memory: Memory = field(default_factory=Memory)
    tokens: float = 0.0
    seconds: float = 0.0
    drafted: list[bool] = field(default_factory=list)

    def text(self) -> Decision:
        decision = Decision(2, 8, self.memory.exploration)
        decision.open(self.memory.costs(1), self.memory.acceptance("a", 1), 1)
        return decision

    def step(self, decision: Decision, came: float) -> bool:
        """A step that brings ``came`` tokens if it drafts, and promises so much."""
        decision.open(self.memory.costs(1), self.memory.acceptance("a", 1), 1)
        decision.prepare(1, 1000, 1)
        levels = decision.levels
        count = decision.nodes([0.0] * 7 + [came - 1]) if levels else 0
        level, verify = 0.1 * self.cost, 0.8 * self.cost if count else 1.0
        decision.commit(StepSeconds((level,) * levels, verify, 0.0), count + 1, round(came - 1))
        self.tokens += came if count else 1.0
        self.seconds += levels * level + verify
        self.drafted.append(levels > 0)
        return levels > 0

    def steps(self, decision: Decision, count: int, came: float) -> int:
        """So many alike; how many of them drafted."""
        return sum(self.step(decision, came) for _ in range(count))


def gain(faster: float, seed: int, steps: int = 4000, spread: float = 0.15) -> float:
    """Tokens a second over plain decoding's where steps with drafts take 2.5 plain ones and bring
    ``faster`` times as much on average, more on some texts and less on others."""
    chance, world = random.Random(seed), World()
    for step in range(steps):
        if step % 50 == 0:
            decision, text = world.text(), chance.uniform(1 - spread, 1 + spread)
        world.step(decision, max(1.0, chance.gauss(2.5 * faster * text, 1.2)))
    return world.tokens / world.seconds


@pytest.mark.parametrize("seed", range(3))
def test_drafts_that_are_a_fifth_faster_are_kept_up_whatever_text_comes(seed: int) -> None:
    assert gain(1.2, seed) > 1.15


def test_of_texts_that_differ_those_that_drafts_suit_bring_more_than_the_mean() -> None:
    assert statistics.mean(gain(1.2, seed, spread=0.3) for seed in range(5)) > 1.22


@pytest.mark.parametrize("faster", [0.5, 0.8, 0.9, 0.95, 1.0])
def test_drafts_that_do_not_pay_cost_three_per_cent_at_most(faster: float) -> None:
    assert gain(faster, seed=0) > 0.97


def known(came: float, steps: int = 60, cost: float = 2.5) -> tuple[World, Decision]:
    """A world that has seen so many steps of one text."""
    world = World(cost)
    decision = world.text()
    world.steps(decision, steps, came)
    return world, decision


def test_drafting_that_does_not_pay_stops_and_is_tried_for_a_small_share_of_the_time() -> None:
    world, decision = known(1.5)
    world.tokens = world.seconds = 0.0
    tried = world.steps(decision, 2000, 1.5)
    assert 5 <= tried <= 0.04 * 2000
    assert world.tokens / world.seconds > 1 - 1.5 * SHARE


def test_a_drafter_that_has_become_good_is_taken_up_at_the_first_tries() -> None:
    world, decision = known(1.5)
    world.steps(decision, 300, 1.5)
    assert world.steps(decision, 400, 5.0) > 200
    assert world.steps(decision, 20, 5.0) >= 18


def test_one_poor_text_does_not_stop_drafting_in_the_next_and_some_do() -> None:
    world, decision = known(4.0)
    for text in range(12):
        decision = world.text()
        drafts = world.step(decision, 1.5)
        if text == 1:
            assert drafts
        world.steps(decision, 60, 1.5)
    assert not drafts


@pytest.mark.parametrize(("good", "bad", "most"), [(5.0, 2.0, 50), (5.0, 1.2, 25), (7.5, 1.2, 36)])
def test_a_text_that_drafts_do_not_suit_is_found_out_in_some_tens_of_steps(
    good: float, bad: float, most: int
) -> None:
    world, _decision = known(good, steps=300)
    world.steps(world.text(), most, bad)
    assert not world.drafted[-1]


def test_a_stall_of_the_machine_does_not_switch_drafting_off() -> None:
    world, decision = known(5.0)
    for part in ("levels", "verify"):
        decision.prepare(1, 1000, 1)
        count = decision.nodes([0.0] * 7 + [4.0])
        levels = (100.0, 100.0) if part == "levels" else (0.25, 0.25)
        verify = 100.0 if part == "verify" else 2.0
        decision.commit(StepSeconds(levels, verify, 0.0), count + 1, 4)
        assert world.steps(decision, 20, 5.0) >= 18


def test_promises_are_believed_as_far_as_they_were_kept() -> None:
    kept = AcceptanceEstimates()
    for _ in range(300):
        kept.fade()
        kept.values.take(1.0, 4.0, 1.0)
    promised, accepted = kept.values.means
    assert accepted / promised == pytest.approx(0.25, abs=0.05)
    world = World()
    decision = world.text()
    for _ in range(100):  # five promised, none accepted
        decision.prepare(1, 1000, 1)
        levels = decision.levels
        count = decision.nodes([0.0] * 7 + [5.0]) if levels else 0
        seconds = StepSeconds((0.25,) * levels, 2.0 if count else 1.0, 0.0)
        decision.commit(seconds, count + 1, 0)
    assert decision.levels == 0


def test_a_long_prompt_is_not_read_for_a_short_answer() -> None:
    _world, decision = known(5.0)
    decision.prepare(1, 1000, 500)
    assert decision.levels, "what reading costs is not known"
    decision.nodes([0.0] * 7 + [4.0])
    decision.commit(StepSeconds((50.0, 0.25), 2.0, 0.0), 9, 4)
    decision.prepare(1, 20, 500)
    assert decision.levels == 0
    decision.prepare(1, 1000, 500)
    assert decision.levels


def test_plain_decoding_is_measured_again_while_drafts_pay_for_a_small_share() -> None:
    world, decision = known(5.0)
    world.tokens = world.seconds = 0.0
    plain = 1000 - world.steps(decision, 1000, 5.0)
    assert 10 <= plain <= 50
    assert world.tokens / world.seconds > (1 - 1.5 * SHARE) * 5.0 / 2.5


def suggested(text: list[float], speed: float) -> Decision:
    _world, decision = known(2.5 * speed, steps=200)
    decision.prepare(1, 1000, 1, text)
    return decision


@pytest.mark.parametrize("speed", [0.5, 1.5])
def test_the_text_alone_is_verified_where_it_promises_much_for_little(speed: float) -> None:
    certain = suggested([0.9 * n for n in range(1, 9)], speed)
    assert certain.lookup_tokens == 8 and certain.levels == 0


def test_text_and_drafter_go_into_one_tree_where_the_text_is_unsure() -> None:
    unsure = suggested([0.3, 0.5, 0.6], 1.5)
    assert unsure.levels and unsure.lookup_tokens == 3


def test_questions_do_not_change_a_decision() -> None:
    world, decision = known(5.0)
    decision.prepare(1, 1000, 1)
    before = [decision.levels, decision.speedup, decision.lookup_accepted_share]
    for _ in range(50):
        assert [decision.levels, decision.speedup, decision.lookup_accepted_share] == before
    assert world.step(decision, 5.0)


# --- exploration


def losses() -> Iterator[float]:
    chance = random.Random(3)
    while True:
        yield chance.choice([0.1, 0.5, 3.0])


def test_what_exploration_loses_is_a_share_of_all_seconds() -> None:
    budget, lost, seconds, loss = Exploration(), 0.0, 0.0, losses()
    for _ in range(20_000):
        budget.earn(1.0)
        seconds += 1.0
        if budget.affords(expected := next(loss)):
            budget.charge(expected)
            lost += expected
    assert 0.9 * SHARE * seconds < lost <= SHARE * seconds


def test_what_a_try_lost_beyond_its_estimate_is_made_up_for_before_the_next() -> None:
    budget = Exploration()
    budget.earn(1 / SHARE)
    assert budget.affords(0.5)
    budget.charge(10.0)
    for _ in range(8):
        budget.earn(1 / SHARE)
        assert not budget.affords(0.5)
